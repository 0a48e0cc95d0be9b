package devnet

import (
	"math/rand/v2"
	"regexp"
	"time"
)

// The transitions of Transition.To. The happy path is the first five in order.
const (
	PaymentConfirmed  = "payment_confirmed"
	PaymentSettled    = "payment_settled"
	Placed            = "placed"
	Shipped           = "shipped"
	DeliveryConfirmed = "delivery_confirmed"
	Failed            = "failed"
	Cancelled         = "cancelled"
	Refunded          = "refunded"
)

// A Transition is the body of simulate.
type Transition struct {
	To            string    `json:"transitionTo"`
	WalletNetwork string    `json:"walletNetwork,omitempty"` // payments only; default bsc
	WalletAddress string    `json:"walletAddress,omitempty"` // payments only; default drawn at random
	Tracking      *Tracking `json:"tracking,omitempty"`      // shipped and delivery_confirmed only
}

// Tracking describes the parcel. Empty fields get made-up values.
type Tracking struct {
	Carrier            string `json:"carrier,omitempty"`
	TrackingNumber     string `json:"trackingNumber,omitempty"`
	CarrierTrackingURL string `json:"carrierTrackingUrl,omitempty"`
	DeliveryStatus     string `json:"deliveryStatus,omitempty"`
}

var evmAddress = regexp.MustCompile(`^0x[0-9a-fA-F]{40}$`)

// Simulate moves an order on and emits what changed: commerce.order.updated,
// then the invoice's and the payment's event where they changed too. An order
// that is not kept is ErrUnknownOrder, a transition that its state does not
// allow is ErrInvalid.
func (s *Server) Simulate(orderID string, t Transition) (Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders.byID[orderID]
	if !ok {
		return Order{}, unknown("Order")
	}
	if err := s.moveLocked(o, t, s.rand); err != nil {
		return Order{}, err
	}
	return o.public(), nil
}

func (s *Server) moveLocked(o *order, t Transition, r *rand.Rand) error {
	if err := t.validate(); err != nil {
		return err
	}
	if !o.allows(t.To) {
		return invalid("transition %s is not allowed: order is %s, invoice %s", t.To, o.status, o.invoiceStatus)
	}
	before := map[string]any{"status": o.status, "substatus": present(o.substatus)}
	o.apply(t, s.now(), r)
	s.emitOrderLocked(typeOrderUpdated, o, before)
	switch t.To {
	case PaymentConfirmed:
		delete(s.orders.pending, o.id)
		s.emitInvoiceLocked(typeInvoiceUpdated, o, map[string]any{"status": "unpaid"})
		s.emitPaymentLocked(typePaymentCreated, o, nil)
	case PaymentSettled:
		s.emitPaymentLocked(typePaymentUpdated, o, map[string]any{"settlement_status": "pending"})
	}
	return nil
}

func (t Transition) validate() error {
	network := t.WalletNetwork
	if network == "" {
		network = "bsc"
	}
	if network == "bsc" && t.WalletAddress != "" && !evmAddress.MatchString(t.WalletAddress) {
		return invalid("walletAddress must be an EVM address for bsc")
	}
	if len(t.WalletAddress) > 128 || len(t.WalletNetwork) > 32 {
		return invalid("wallet too long")
	}
	return nil
}

// allows says whether the order's state permits a transition. Repeating the
// current state is not permitted.
func (o *order) allows(to string) bool {
	switch to {
	case PaymentConfirmed:
		return o.status == statusPending && o.invoiceStatus == "unpaid"
	case PaymentSettled:
		return o.status == statusProcessing && !o.settled
	case Placed:
		return o.status == statusProcessing && o.settled
	case Shipped, Cancelled:
		return o.status == statusPlaced
	case DeliveryConfirmed:
		return o.status == statusShipped
	case Failed:
		return o.status == statusProcessing
	case Refunded:
		return o.paid() && !o.refunded && o.refundWallet != ""
	}
	return false
}

// apply changes the order as a permitted transition does.
func (o *order) apply(t Transition, now time.Time, r *rand.Rand) {
	switch t.To {
	case PaymentConfirmed:
		o.pay(t, now, r)
		o.note(statusProcessing, "", "Payment received", now)
	case PaymentSettled:
		o.settled = true
		o.note(statusProcessing, "PROVIDER_PLACEMENT_SUBMITTED", "Payment settled", now)
	case Placed:
		o.note(statusPlaced, "AWAITING_TRACKING", "Placed", now)
	case Shipped:
		o.ship(t.Tracking, "In Transit", now)
		o.note(statusShipped, "", "Shipped", now)
	case DeliveryConfirmed:
		o.ship(t.Tracking, "Delivered", now)
		o.note(statusDelivered, "", "Delivered", now)
	case Failed:
		o.note(statusFailed, "", "Failed", now)
	case Cancelled:
		o.note(statusCancelled, "", "Cancelled", now)
	case Refunded:
		o.refunded = true
		o.note(o.status, o.substatus, "Refunded", now)
	}
}

func (o *order) pay(t Transition, now time.Time, r *rand.Rand) {
	o.invoiceStatus, o.paidAt = "paid", now
	o.wallet, o.network = t.WalletAddress, t.WalletNetwork
	if o.wallet == "" {
		o.wallet = newWallet(r)
	}
	if o.network == "" {
		o.network = "bsc"
	}
}

func (o *order) ship(tracking *Tracking, status string, now time.Time) {
	var t Tracking
	if tracking != nil {
		t = *tracking
	}
	if len(o.shipments) == 0 {
		number := "1Z" + o.id[:8]
		o.shipments = []shipment{{
			ShipmentID: "ship_" + o.id[:8], Carrier: "UPS", TrackingNumber: number,
			CarrierTrackingURL:     "https://carrier.invalid/" + number,
			RetailerTrackingNumber: "TBA" + o.id[:8], RetailerTrackingURL: "https://shop.invalid/track/" + o.id[:8],
			ObtainedAt: now.UTC().Truncate(time.Millisecond),
		}}
	}
	sh := &o.shipments[0]
	overwrite(&sh.Carrier, t.Carrier)
	overwrite(&sh.TrackingNumber, t.TrackingNumber)
	overwrite(&sh.CarrierTrackingURL, t.CarrierTrackingURL)
	overwrite(&sh.DeliveryStatus, status)
	overwrite(&sh.DeliveryStatus, t.DeliveryStatus)
}

func overwrite(v *string, with string) {
	if with != "" {
		*v = with
	}
}
