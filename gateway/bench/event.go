package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// eventBytes is the size of every event: about what the upstream's full ones have.
const eventBytes = 600

// seqDigits is how many digits of an event's id are its number.
const seqDigits = 9

// A script makes the events of one run. Their ids begin alike and end with a
// number from 1, by which a client knows what it got; nothing else is looked at.
type script struct {
	run    string // in every key, so that runs do not meet
	prefix []byte // of every event: up to the digits of its number
	at     time.Time

	// The first events are said to have happened before at, one after the other.
	past  int64
	apart time.Duration
}

func newScript(at time.Time) *script {
	return &script{
		run: strconv.FormatInt(at.UnixMilli(), 36), at: at,
		prefix: fmt.Appendf(nil, `{"id":"evt_%013d-`, at.UnixMilli()),
	}
}

// subject is the customer, and the order, that key stands for.
func (s *script) subject(key int) string { return fmt.Sprintf("bench_%s_%d", s.run, key) }

// created is when event n is said to have happened.
func (s *script) created(n int64) time.Time {
	return s.at.Add(-time.Duration(max(s.past-n, 0)) * s.apart)
}

// event returns event n, of the subject that key stands for.
func (s *script) event(n int64, key int) []byte {
	b := make([]byte, 0, eventBytes)
	b = append(b, s.prefix...)
	b = fmt.Appendf(b, `%0*d","object":"event","api_version":"2025-12-16","created":%d,"type":"commerce.order.updated",`+
		`"livemode":false,"pending_webhooks":0,"request":{"id":null,"idempotency_key":null},"data":{"object":{"object":"commerce_order",`+
		`"id":"%[4]s","customer_id":"%[4]s","status":"processing","substatus":null,"currency":"USD","total":"25.00",`+
		`"tracking":null,"note":"`, seqDigits, n, s.created(n).Unix(), s.subject(key))
	const end = `"},"previous_attributes":{"status":"pending"}}}`
	b = append(b, strings.Repeat("x", max(0, eventBytes-len(b)-len(end)))...)
	return append(b, end...)
}

// number returns which event of this run data is, false for anything else.
func (s *script) number(data []byte) (int64, bool) {
	rest, ok := bytes.CutPrefix(data, s.prefix)
	if !ok || len(rest) < seqDigits {
		return 0, false
	}
	var n int64
	for _, c := range rest[:seqDigits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// id returns the id of event n.
func (s *script) id(n int64) string {
	return fmt.Sprintf("evt_%013d-%0*d", s.at.UnixMilli(), seqDigits, n)
}
