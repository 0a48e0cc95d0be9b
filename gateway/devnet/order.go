package devnet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The statuses of an order.
const (
	statusPending    = "pending_payment"
	statusProcessing = "processing"
	statusPlaced     = "placed"
	statusShipped    = "shipped"
	statusDelivered  = "delivered"
	statusCancelled  = "cancelled"
	statusFailed     = "failed"
)

// An order is one purchase with its invoice and, once paid, its payment. It is
// guarded by the server's mutex.
type order struct {
	id, invoiceID, paymentID string
	customer                 string
	wallet, network          string // of the payer; empty before payment
	refundWallet             string // where refunds go on BSC
	status, substatus        string
	invoiceStatus            string
	settled, refunded        bool
	items                    []lineItem
	address                  any
	shipments                []shipment
	timeline                 []timelineEntry
	createdAt, updatedAt     time.Time
	expiresAt, paidAt        time.Time
}

// A lineItem is one line of an order.
type lineItem struct {
	ProductID string `json:"productId"`
	Title     string `json:"title"`
	ImageURL  string `json:"imageUrl"`
	Quantity  int    `json:"quantity"`
	Price     string `json:"price"`
	Status    string `json:"status"`

	millis int64 // of one piece
}

type timelineEntry struct {
	Status    string    `json:"status"`
	Timestamp time.Time `json:"timestamp"`
	Message   string    `json:"message"`
}

type shipment struct {
	ShipmentID             string    `json:"shipmentId"`
	Carrier                string    `json:"carrier"`
	TrackingNumber         string    `json:"trackingNumber"`
	CarrierTrackingURL     string    `json:"carrierTrackingUrl"`
	DeliveryStatus         string    `json:"deliveryStatus"`
	RetailerTrackingNumber string    `json:"retailerTrackingNumber"`
	RetailerTrackingURL    string    `json:"retailerTrackingUrl"`
	ObtainedAt             time.Time `json:"obtainedAt"`
}

func (o *order) paid() bool { return o.invoiceStatus == "paid" }

// millis is the total in thousandths of a dollar: goods plus a tenth as fee.
func (o *order) millis() int64 { return o.goods() + o.fee() }

func (o *order) goods() int64 {
	var sum int64
	for _, item := range o.items {
		sum += item.millis * int64(item.Quantity)
	}
	return sum
}

func (o *order) fee() int64 { return o.goods() / 10 }

func (o *order) keys() keys {
	return keys{order: o.id, invoice: o.invoiceID, customer: o.customer, wallet: o.wallet, network: o.network}
}

// note moves the order to a status and writes its timeline.
func (o *order) note(status, substatus, message string, now time.Time) {
	o.status, o.substatus, o.updatedAt = status, substatus, now
	o.timeline = append(o.timeline, timelineEntry{status, now.UTC().Truncate(time.Millisecond), message})
}

// catalogue is what the shop sells.
var catalogue = [...]lineItem{
	{ProductID: "B0LAMP01", Title: "Desk lamp", millis: 9_000},
	{ProductID: "B0KEYB02", Title: "Mechanical keyboard", millis: 89_900},
	{ProductID: "B0MUGS03", Title: "Coffee mug", millis: 12_500},
	{ProductID: "B0HEAD04", Title: "Headphones", millis: 149_000},
	{ProductID: "B0NOTE05", Title: "Notebook, dotted", millis: 7_250},
	{ProductID: "B0BACK06", Title: "Backpack", millis: 64_000},
}

func pickItems(r *rand.Rand) []lineItem {
	items := make([]lineItem, 0, 2)
	for range 1 + r.IntN(2) {
		item := catalogue[r.IntN(len(catalogue))]
		item.ImageURL = "https://shop.invalid/" + item.ProductID + ".png"
		item.Quantity, item.Status, item.Price = 1+r.IntN(2), "processing", dollars(item.millis)
		items = append(items, item)
	}
	return items
}

func dollars(millis int64) string { return fmt.Sprintf("%d.%02d", millis/1000, millis%1000/10) }

// newUUID draws a version 4 UUID from r, so that a seeded run names its orders
// alike every time.
func newUUID(r *rand.Rand) string {
	a, b := r.Uint64(), r.Uint64()
	a = a&^uint64(0xf000) | 0x4000
	b = b&^(uint64(3)<<62) | uint64(2)<<62
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&0xffffffffffff)
}

func newWallet(r *rand.Rand) string {
	return fmt.Sprintf("0x%016x%016x%08x", r.Uint64(), r.Uint64(), r.Uint32())
}

// orderBook keeps the newest orders in memory. It is guarded by the server's
// mutex.
type orderBook struct {
	max       int
	byID      map[string]*order
	byInvoice map[string]*order
	pending   map[string]*order // unpaid, waiting to expire
	list      []*order          // in order of creation
}

func newOrderBook(limit int) *orderBook {
	return &orderBook{
		max: limit, byID: make(map[string]*order), byInvoice: make(map[string]*order), pending: make(map[string]*order),
	}
}

// add keeps o, and forgets the oldest orders in large steps once there are too
// many.
func (b *orderBook) add(o *order) {
	b.byID[o.id], b.byInvoice[o.invoiceID] = o, o
	if o.invoiceStatus == "unpaid" {
		b.pending[o.id] = o
	}
	b.list = append(b.list, o)
	excess := len(b.list) - b.max
	if excess <= b.max/8 {
		return
	}
	for _, old := range b.list[:excess] {
		delete(b.byID, old.id)
		delete(b.byInvoice, old.invoiceID)
		delete(b.pending, old.id)
	}
	b.list = slices.Delete(b.list, 0, excess)
}
