package devnet

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

const (
	maxCustomerBytes = 256
	maxOrderAge      = 10 * 365 * 24 * time.Hour // far beyond any retention
)

// A NewOrder asks for an order that did not come through checkout.
type NewOrder struct {
	CustomerID   string `json:"customer_id"`
	Status       string `json:"status,omitempty"`        // where it already is; default pending_payment
	AgeSeconds   int    `json:"age_seconds,omitempty"`   // how long ago it was created
	Silent       bool   `json:"silent,omitempty"`        // emit no event: only GET knows the order
	RefundWallet string `json:"refund_wallet,omitempty"` // BSC address, without which it cannot be refunded

	items   []lineItem // from checkout; default a few drawn from the catalogue
	address any
}

// An Order says what an order is and where it stands.
type Order struct {
	ID         string    `json:"order_id"`
	InvoiceID  string    `json:"invoice_id"`
	CustomerID string    `json:"customer_id"`
	Status     string    `json:"status"`
	CreatedAt  time.Time `json:"created_at"`
}

func (o *order) public() Order {
	return Order{o.id, o.invoiceID, o.customer, o.status, o.createdAt}
}

// CreateOrder creates an order with its invoice and emits
// commerce.order.created and invoice.created. A malformed request is
// ErrInvalid.
func (s *Server) CreateOrder(in NewOrder) (Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.createLocked(in, s.rand)
	if err != nil {
		return Order{}, err
	}
	return o.public(), nil
}

// Order returns one order, or ErrUnknownOrder.
func (s *Server) Order(id string) (Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders.byID[id]
	if !ok {
		return Order{}, unknown("Order")
	}
	return o.public(), nil
}

func (s *Server) createLocked(in NewOrder, r *rand.Rand) (*order, error) {
	if err := in.validate(); err != nil {
		return nil, err
	}
	o := &order{
		id: newUUID(r), invoiceID: newUUID(r), paymentID: newUUID(r), customer: in.CustomerID, refundWallet: in.RefundWallet,
		invoiceStatus: "unpaid", items: in.items, address: in.address,
		createdAt: s.now().Add(-time.Duration(in.AgeSeconds) * time.Second),
	}
	if _, taken := s.orders.byID[o.id]; taken { // a run with the same seed came before
		return s.createLocked(in, r)
	}
	if o.items == nil {
		o.items = pickItems(r)
	}
	o.expiresAt = o.createdAt.Add(s.cfg.InvoiceTTL)
	o.note(statusPending, "", "Waiting for payment", o.createdAt)
	o.advanceTo(in.Status, r)
	if o.invoiceStatus == "unpaid" && in.Silent && !s.now().Before(o.expiresAt) {
		o.invoiceStatus = "expired" // long ago, so that no event tells of it now
	}
	s.orders.add(o)
	if !in.Silent {
		s.emitOrderLocked(typeOrderCreated, o, nil)
		s.emitInvoiceLocked(typeInvoiceCreated, o, nil)
	}
	return o, nil
}

func (in NewOrder) validate() error {
	if in.CustomerID == "" || len(in.CustomerID) > maxCustomerBytes {
		return invalid("customer_id must be 1 to %d bytes", maxCustomerBytes)
	}
	if in.Status != "" && !slices.Contains(allStatuses[:], in.Status) {
		return invalid("unknown status")
	}
	if in.AgeSeconds < 0 || in.AgeSeconds > int(maxOrderAge/time.Second) {
		return invalid("age_seconds out of range")
	}
	if in.RefundWallet != "" && !evmAddress.MatchString(in.RefundWallet) {
		return invalid("refund destination must be an EVM address")
	}
	return nil
}

var allStatuses = [...]string{
	statusPending, statusProcessing, statusPlaced, statusShipped, statusDelivered, statusCancelled, statusFailed,
}

// advanceTo takes a new order along the shortest way to status.
func (o *order) advanceTo(status string, r *rand.Rand) {
	path := map[string][]string{
		statusProcessing: {PaymentConfirmed},
		statusFailed:     {PaymentConfirmed, Failed},
		statusPlaced:     {PaymentConfirmed, PaymentSettled, Placed},
		statusCancelled:  {PaymentConfirmed, PaymentSettled, Placed, Cancelled},
		statusShipped:    {PaymentConfirmed, PaymentSettled, Placed, Shipped},
		statusDelivered:  {PaymentConfirmed, PaymentSettled, Placed, Shipped, DeliveryConfirmed},
	}
	for _, step := range path[status] {
		o.apply(Transition{To: step}, o.createdAt, r)
	}
}

// expireLoop expires unpaid invoices until ctx ends.
func (s *Server) expireLoop(ctx context.Context) {
	tick := time.NewTicker(min(max(s.cfg.InvoiceTTL/20, 5*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.expireInvoices()
		}
	}
}

// expireInvoices expires what is due. What an expiry does to the order is not
// documented; here the order stays as it is.
func (s *Server) expireInvoices() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for id, o := range s.orders.pending {
		if now.Before(o.expiresAt) {
			continue
		}
		delete(s.orders.pending, id)
		o.invoiceStatus = "expired"
		s.emitInvoiceLocked(typeInvoiceUpdated, o, map[string]any{"status": "unpaid"})
	}
}

// itemsOf checks the goods of an estimate.
func itemsOf(lines []estimateLine) ([]lineItem, error) {
	if len(lines) > 50 {
		return nil, invalid("at most 50 items")
	}
	items := make([]lineItem, 0, len(lines))
	for _, l := range lines {
		price, err := strconv.ParseFloat(l.Price, 64)
		if err != nil || !(price >= 0 && price <= 1e6) || l.Quantity < 1 || l.Quantity > 1000 || len(l.Title) > 500 || len(l.ProductID) > 100 {
			return nil, invalid("items need a price (string), a quantity of 1 to 1000 and short texts")
		}
		millis := int64(price*1000 + 0.5)
		items = append(items, lineItem{
			ProductID: l.ProductID, Title: l.Title, ImageURL: l.ImageURL, Quantity: l.Quantity,
			Price: dollars(millis), Status: "processing", millis: millis,
		})
	}
	return items, nil
}
