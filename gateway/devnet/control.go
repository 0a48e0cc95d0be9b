package devnet

import (
	"encoding/json"
	"time"

	"github.com/gofiber/fiber/v2"
)

// maxRepeat bounds what one request to emit can send.
const maxRepeat = 100_000

// routeControl serves what tests and the demo steer a devnet with. Bodies are
// the JSON of the named types; errors are 400 with the nested body.
//
//	GET  /_devnet/state         State
//	GET  /_devnet/events        {"events":[Recorded…]}; ?after=<event id>: newer ones only
//	GET  /_devnet/faults        Faults
//	POST /_devnet/faults        Faults, merged into the current ones; null turns one off
//	POST /_devnet/faults/reset
//	POST /_devnet/cut           Ending, or nothing: drop all streams
//	POST /_devnet/orders        NewOrder, answered by Order
//	POST /_devnet/emit          Frame
//	POST /_devnet/shop          Shop
func (s *Server) routeControl(app *fiber.App) {
	control := app.Group("/_devnet")
	control.Get("/state", func(c *fiber.Ctx) error { return c.JSON(s.State()) })
	control.Get("/events", func(c *fiber.Ctx) error { return c.JSON(fiber.Map{"events": s.Record(c.Query("after"))}) })
	control.Get("/faults", func(c *fiber.Ctx) error { return c.JSON(s.Faults()) })
	control.Post("/faults", s.postFaults)
	control.Post("/faults/reset", s.resetFaults)
	control.Post("/cut", s.postCut)
	control.Post("/orders", s.postOrder)
	control.Post("/emit", s.postEmit)
	control.Post("/shop", s.postShop)
}

// A State counts what a devnet has and has seen.
type State struct {
	Connections      int `json:"connections"`       // streams open now
	MaxConnections   int `json:"max_connections"`   // most streams ever open at once
	TotalConnections int `json:"total_connections"` // streams ever opened
	Orders           int `json:"orders"`            // kept now
	Events           int `json:"events"`            // ever recorded
	Mints            int `json:"mints"`             // tokens ever given out
	Reads            int `json:"reads"`             // REST reads of events, orders and invoices
}

// State returns the counters.
func (s *Server) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{
		Connections: len(s.streams), MaxConnections: s.maxOpen, TotalConnections: s.opened,
		Orders: len(s.orders.list), Events: s.events.total, Mints: s.mints, Reads: s.reads,
	}
}

// A Recorded is the truth about one event: its exact text and, also where
// that does not say so, whose it is.
type Recorded struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	OrderID    string `json:"order_id"`
	InvoiceID  string `json:"invoice_id"`
	CustomerID string `json:"customer_id"`
	Raw        string `json:"raw"`
}

// Record returns the recorded events that are newer than the one named after,
// ascending by id, as far as Config.Recorded keeps them. An id that names no
// place, such as "", returns all.
func (s *Server) Record(after string) []Recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events.events
	if at, ok := s.events.resolve(after); ok {
		events = events[s.events.after(at):]
	}
	all := make([]Recorded, len(events))
	for i, ev := range events {
		all[i] = Recorded{ev.id, ev.typ, ev.keys.order, ev.keys.invoice, ev.keys.customer, string(ev.data)}
	}
	return all
}

// Cut ends every stream that is open now, as e says, without waiting for it.
// It returns how many those are.
func (s *Server) Cut(e Ending) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.cut(e)
	}
	return len(s.streams)
}

// A Frame is an arbitrary message for the streams.
type Frame struct {
	Frame      string `json:"frame"`
	Binary     bool   `json:"binary,omitempty"`      // send it as a binary message
	Repeat     int    `json:"repeat,omitempty"`      // times; default 1
	Listed     bool   `json:"listed,omitempty"`      // record it, so that it is replayed, and REST lists it; it must be JSON with an id
	Unsent     bool   `json:"unsent,omitempty"`      // do not send it now
	OrderID    string `json:"order_id,omitempty"`    // whose it is: for filters and the record.
	InvoiceID  string `json:"invoice_id,omitempty"`  // An order that is kept supplies
	CustomerID string `json:"customer_id,omitempty"` // what is left out.
}

// Emit sends f to every open stream, whatever its filter, and returns how many
// those are. A listed frame that is not an event with an id, or a count out of
// bounds, is ErrInvalid.
func (s *Server) Emit(f Frame) (int, error) {
	if f.Repeat < 0 || f.Repeat > maxRepeat {
		return 0, invalid("repeat must be 0 to %d", maxRepeat)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fr := &frame{data: []byte(f.Frame), binary: f.Binary}
	if f.Listed {
		ev, err := s.adoptLocked(f)
		if err != nil {
			return 0, err
		}
		fr = &ev.frame
		s.events.insert(ev)
	}
	if f.Unsent {
		return 0, nil
	}
	for range max(1, f.Repeat) {
		s.sendAllLocked(fr)
	}
	return len(s.streams), nil
}

// adoptLocked makes a recorded event of a foreign frame. An id that is not of
// the usual form takes its place at the end.
func (s *Server) adoptLocked(f Frame) (*event, error) {
	var said struct {
		ID      string  `json:"id"`
		Type    string  `json:"type"`
		Created float64 `json:"created"`
	}
	if err := json.Unmarshal([]byte(f.Frame), &said); err != nil || said.ID == "" {
		return nil, invalid("a listed frame must be an event with an id")
	}
	if _, taken := s.events.byID[said.ID]; taken {
		return nil, invalid("there is an event with this id")
	}
	now := s.now()
	at, ok := parseEventID(said.ID)
	if !ok {
		at = s.events.nextID(now)
	}
	created := int64(said.Created)
	if created == 0 {
		created = at.ms / 1000
	}
	return &event{
		frame: frame{data: []byte(f.Frame), binary: f.Binary},
		id:    said.ID, at: at, created: created, typ: said.Type, keys: s.ownerLocked(f), emitted: time.Now(),
	}, nil
}

func (s *Server) ownerLocked(f Frame) keys {
	k := keys{order: f.OrderID, invoice: f.InvoiceID, customer: f.CustomerID}
	o, ok := s.orders.byID[f.OrderID]
	if !ok {
		o, ok = s.orders.byInvoice[f.InvoiceID]
	}
	if !ok {
		return k
	}
	own := o.keys()
	overwrite(&own.order, k.order)
	overwrite(&own.invoice, k.invoice)
	overwrite(&own.customer, k.customer)
	return own
}

func (s *Server) postFaults(c *fiber.Ctx) error {
	f, err := s.mergeFaults(c.Body())
	if err != nil {
		return err
	}
	return c.JSON(f)
}

func (s *Server) resetFaults(c *fiber.Ctx) error {
	if err := s.SetFaults(Faults{}); err != nil {
		return err
	}
	return c.JSON(s.Faults())
}

func (s *Server) postCut(c *fiber.Ctx) error {
	var e Ending
	if err := decodeStrict(c.Body(), &e); err != nil {
		return err
	}
	return c.JSON(fiber.Map{"cut": s.Cut(e)})
}

func (s *Server) postOrder(c *fiber.Ctx) error {
	var in NewOrder
	if err := decodeStrict(c.Body(), &in); err != nil {
		return err
	}
	o, err := s.CreateOrder(in)
	if err != nil {
		return err
	}
	return c.JSON(o)
}

func (s *Server) postEmit(c *fiber.Ctx) error {
	var f Frame
	if err := decodeStrict(c.Body(), &f); err != nil {
		return err
	}
	n, err := s.Emit(f)
	if err != nil {
		return err
	}
	return c.JSON(fiber.Map{"streams": n})
}

func (s *Server) postShop(c *fiber.Ctx) error {
	var p Shop
	if err := decodeStrict(c.Body(), &p); err != nil {
		return err
	}
	if err := s.SetShop(p); err != nil {
		return err
	}
	return c.JSON(p)
}
