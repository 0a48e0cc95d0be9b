package gateway

import "time"

// settledFor bounds how long an order counts as in front without the log being
// told again: by as much what the log knows of its last activity is late.
const settledFor = time.Minute

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

// settled returns how many records after the one that last put its order in front
// ev is appended, with ahead records before it in its batch; 0 where the log has
// to put it there. Until that is known to have happened, none is in front.
func (f *fronts) settled(ev *Event, ahead int) uint64 {
	if ev.Keys.Customer == "" {
		return 0
	}
	at := f.of[ev.Keys.Customer]
	age := ev.Received - at.touched
	if at.order != ev.Keys.Order || age < 0 || age >= settledFor.Milliseconds() {
		delete(f.of, ev.Keys.Customer)
		return 0
	}
	return f.count + uint64(ahead) + 1 - at.count
}

// appended takes note of the records of a batch. Those that were in the log
// before moved nothing, and which they are is not known.
func (f *fronts) appended(records []Record, duplicates int) {
	for i := range records {
		f.count++
		ev := records[i].Event
		switch {
		case ev == nil:
			delete(f.of, records[i].Join.Customer)
		case duplicates == 0 && records[i].Settled == 0 && ev.Keys.Customer != "":
			f.of[ev.Keys.Customer] = front{ev.Keys.Order, ev.Received, f.count}
		}
	}
}
