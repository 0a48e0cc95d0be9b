package gateway

import "time"

// How long an order counts as in front without the log being told again. By as
// much what the log knows of its last activity is late, by which it forgets.
const (
	settledFor     = time.Minute
	settledRecords = 25_000
)

// fronts is what the leader knows of who is in front: the order of a customer
// that the log lists before the customer's others. As with links, nobody else
// writes. A customer is missing where it is not certain.
type fronts struct {
	of    map[string]front // by customer
	count uint64           // records appended in this term
}

type front struct {
	order   string
	touched int64  // unix ms: when the log took note of the order
	count   uint64 // of the record with which it did
}

// settle returns the distance in records from the one that put ev's order in front
// to ev, which has ahead others before it in its batch. 0: ev is to do that, and
// nobody is in front of its customer's until it is known to have happened.
func (f *fronts) settle(ev *Event, ahead int) uint64 {
	at, ok := f.of[ev.Keys.Customer]
	age, distance := ev.Received-at.touched, f.count+uint64(ahead)+1-at.count
	if ok && at.order == ev.Keys.Order && age >= 0 && age < settledFor.Milliseconds() && distance <= settledRecords {
		return distance
	}
	f.unsettle(ev.Keys.Customer)
	return 0
}

// unsettle forgets who is in front of customer's orders.
func (f *fronts) unsettle(customer string) { delete(f.of, customer) }

// appended takes note of the records of a batch. Those that were in the log
// before moved nothing, and which they are is not known.
func (f *fronts) appended(records []Record, duplicates int) {
	for i := range records {
		f.count++
		ev := records[i].Event
		switch {
		case ev == nil:
			f.unsettle(records[i].Join.Customer) // for an event before it in the batch
		case ev.Keys.Order == "" || ev.Keys.Customer == "" || duplicates > 0 || records[i].Settled > 0:
		default:
			f.of[ev.Keys.Customer] = front{ev.Keys.Order, ev.Received, f.count}
		}
	}
}
