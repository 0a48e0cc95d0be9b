package devnet

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	defaultOrders = 20
	maxOrdersPage = 100
	maxCarts      = 10_000 // estimates and addresses kept; beyond it an arbitrary one is forgotten
)

func (s *Server) routeMerchant(app *fiber.App) {
	app.Get("/api/commerce/merchant/orders", s.readable, s.requireCommerce, s.listOrders)
	app.Get("/api/commerce/merchant/orders/:id", s.readable, s.requireCommerce, s.retrieveOrder)
	app.Get("/api/commerce/merchant/invoices/:id/status", s.readable, s.requireCommerce, s.invoiceStatus)
	app.Post("/api/commerce/merchant/checkout/estimate", s.requireCommerce, s.estimate)
	app.Post("/api/commerce/merchant/checkout/address", s.requireCommerce, s.shippingAddress)
	app.Post("/api/commerce/merchant/checkout/invoice", s.requireCommerce, s.checkout)
	app.Post("/api/commerce/devnet/orders/:id/simulate", s.requireCommerce, s.simulate)
}

// An orderRow is an order in a list.
type orderRow struct {
	OrderID            string           `json:"orderId"`
	InvoiceID          string           `json:"invoiceId"`
	MerchantID         int              `json:"merchantId"`
	NetworkEnvironment string           `json:"networkEnvironment"`
	Retailer           string           `json:"retailer"`
	CustomerID         string           `json:"customerId"`
	WalletAddress      *string          `json:"walletAddress"`
	WalletNetwork      *string          `json:"walletNetwork"`
	Status             string           `json:"status"`
	Substatus          *string          `json:"substatus"`
	CreatedAt          stamp            `json:"createdAt"`
	UpdatedAt          stamp            `json:"updatedAt"`
	Total              float64          `json:"total"`
	ItemCount          int              `json:"itemCount"`
	Shipments          shipmentsSummary `json:"shipmentsSummary"`
}

type shipmentsSummary struct {
	ShipmentCount  int   `json:"shipmentCount"`
	HasTracking    bool  `json:"hasTracking"`
	LastTrackingAt stamp `json:"lastTrackingAt"`
	IsDelivered    bool  `json:"isDelivered"`
}

func (s *Server) orderRow(o *order) orderRow {
	row := orderRow{
		OrderID: o.id, InvoiceID: o.invoiceID, MerchantID: s.cfg.MerchantID, NetworkEnvironment: s.cfg.Environment,
		Retailer: "amazon", CustomerID: o.customer, WalletAddress: present(o.wallet), WalletNetwork: present(o.network),
		Status: o.status, Substatus: present(o.substatus), CreatedAt: s.stamp(o.createdAt), UpdatedAt: s.stamp(o.updatedAt),
		Total: float64(o.millis()) / 1000, ItemCount: len(o.items),
		Shipments: shipmentsSummary{ShipmentCount: len(o.shipments), HasTracking: len(o.shipments) > 0, IsDelivered: o.status == statusDelivered},
	}
	if len(o.shipments) > 0 {
		row.Shipments.LastTrackingAt = s.stamp(o.shipments[0].ObtainedAt)
	}
	return row
}

// An orderQuery selects orders. Empty parts select all.
type orderQuery struct {
	customer, status, retailer, wallet, network string
	from, to                                    time.Time
	limit, offset                               int
}

func parseOrders(c *fiber.Ctx) (orderQuery, error) {
	q := orderQuery{
		customer: c.Query("customer_id"), status: c.Query("status"), retailer: c.Query("retailer"),
		wallet: c.Query("wallet"), network: c.Query("walletNetwork"),
	}
	if q.status != "" && !slices.Contains(allStatuses[:], q.status) {
		return q, invalid("unknown status")
	}
	var err error
	if q.limit, err = queryInt(c, "limit", defaultOrders, maxOrdersPage); err != nil || q.limit == 0 {
		return q, invalid("limit must be 1 to %d", maxOrdersPage)
	}
	if q.offset, err = queryInt(c, "offset", 0, math.MaxInt32); err != nil {
		return q, err
	}
	if q.from, err = queryTime(c, "createdFrom"); err != nil {
		return q, err
	}
	q.to, err = queryTime(c, "createdTo")
	return q, err
}

func queryInt(c *fiber.Ctx, name string, def, limit int) (int, error) {
	v := c.Query(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > limit {
		return 0, invalid("%s out of range", name)
	}
	return n, nil
}

// queryTime reads unix seconds or RFC 3339; which of them is not documented.
func queryTime(c *fiber.Ctx, name string) (time.Time, error) {
	v := c.Query(name)
	if v == "" {
		return time.Time{}, nil
	}
	if n, err := parseDigits(v); err == nil {
		return time.Unix(n, 0), nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return t, invalid("%s must be a time", name)
	}
	return t, nil
}

func (q orderQuery) match(o *order) bool {
	return matchKey(q.customer, o.customer) && matchKey(q.status, o.status) && matchKey(q.network, o.network) &&
		(q.wallet == "" || sameWallet(q.wallet, o.wallet)) && matchKey(q.retailer, "amazon") &&
		(q.from.IsZero() || !o.createdAt.Before(q.from)) && (q.to.IsZero() || !o.createdAt.After(q.to))
}

// listOrders is GET /api/commerce/merchant/orders, newest first. The count of
// its pagination is that of all matching orders.
func (s *Server) listOrders(c *fiber.Ctx) error {
	q, err := parseOrders(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	rows, count := make([]orderRow, 0, q.limit), 0
	for _, o := range slices.Backward(s.orders.list) {
		if !q.match(o) {
			continue
		}
		if count >= q.offset && len(rows) < q.limit {
			rows = append(rows, s.orderRow(o))
		}
		count++
	}
	s.mu.Unlock()
	return answer(c, fiber.Map{
		"orders":     rows,
		"pagination": fiber.Map{"limit": q.limit, "offset": q.offset, "count": count},
	})
}

// retrieveOrder is GET /api/commerce/merchant/orders/{id}.
func (s *Server) retrieveOrder(c *fiber.Ctx) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders.byID[c.Params("id")]
	if !ok {
		return unknown("Order")
	}
	return answer(c, fiber.Map{"order": s.orderObject(o)})
}

// invoiceStatus is GET /api/commerce/merchant/invoices/{id}/status.
func (s *Server) invoiceStatus(c *fiber.Ctx) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders.byInvoice[c.Params("id")]
	if !ok {
		return unknown("Invoice")
	}
	obj := s.orderObject(o)
	return answer(c, fiber.Map{
		"invoiceId": o.invoiceID, "orderId": o.id, "payment": obj.Payment,
		"order": fiber.Map{
			"orderId": o.id, "status": o.status, "substatus": obj.Substatus, "customerId": o.customer, "actions": obj.Actions,
		},
	})
}

type estimateRequest struct {
	Items []estimateLine `json:"items"`
}

type estimateLine struct {
	ProductID string `json:"productId"`
	Title     string `json:"title"`
	ImageURL  string `json:"imageUrl"`
	Quantity  int    `json:"quantity"`
	Price     string `json:"price"`
}

// estimate is POST …/checkout/estimate. Without items it picks some.
func (s *Server) estimate(c *fiber.Ctx) error {
	var req estimateRequest
	if err := decodeLoose(c.Body(), &req); err != nil {
		return err
	}
	items, err := itemsOf(req.Items)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(items) == 0 {
		items = pickItems(s.rand)
	}
	id := "est_" + newUUID(s.rand)
	keep(s.carts, id, items)
	o := order{items: items}
	return answer(c, fiber.Map{
		"estimateId": id, "lineItems": items, "totalAmountUsd": dollars(o.millis()), "commerceFeeUsd": dollars(o.fee()),
	})
}

// shippingAddress is POST …/checkout/address.
func (s *Server) shippingAddress(c *fiber.Ctx) error {
	var address map[string]any
	if err := decodeLoose(c.Body(), &address); err != nil {
		return err
	}
	if len(address) == 0 || len(c.Body()) > 4096 {
		return invalid("address must be an object of at most 4096 bytes")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "addr_" + newUUID(s.rand)
	keep(s.addresses, id, any(address))
	return answer(c, fiber.Map{"addressId": id})
}

func keep[V any](m map[string]V, id string, v V) {
	if len(m) >= maxCarts {
		for old := range m {
			delete(m, old)
			break
		}
	}
	m[id] = v
}

type checkoutRequest struct {
	CustomerID   string `json:"customer_id"`
	EstimateID   string `json:"estimateId"`
	AddressID    string `json:"addressId"`
	RefundWallet string `json:"refundDestinationWalletAddressBsc"`
}

// checkout is POST …/checkout/invoice: an order and its invoice. Estimate and
// address may be left out here, but not made up.
func (s *Server) checkout(c *fiber.Ctx) error {
	var req checkoutRequest
	if err := decodeLoose(c.Body(), &req); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in := NewOrder{CustomerID: req.CustomerID, RefundWallet: req.RefundWallet}
	var ok bool
	if in.items, ok = s.carts[req.EstimateID]; !ok && req.EstimateID != "" {
		return invalid("unknown estimateId")
	}
	if in.address, ok = s.addresses[req.AddressID]; !ok && req.AddressID != "" {
		return invalid("unknown addressId")
	}
	o, err := s.createLocked(in, s.rand)
	if err != nil {
		return err
	}
	return answer(c, s.checkoutAnswer(c, o))
}

func (s *Server) checkoutAnswer(c *fiber.Ctx, o *order) fiber.Map {
	session := "pst_" + newUUID(s.rand)
	signature := "sig_" + newUUID(s.rand) + "." + strconv.FormatInt(s.now().UnixMilli(), 10)
	base := c.BaseURL()
	return fiber.Map{
		"orderId": o.id, "invoiceId": o.invoiceID, "invoiceUrl": base + "/invoice/" + o.invoiceID,
		"session": session, "signature": signature,
		"payment_session_headers": fiber.Map{"x-session-token": session, "x-signature": signature},
		"merchantId":              s.cfg.MerchantID, "networkEnvironment": s.cfg.Environment,
		"customerId": o.customer, "amount": dollars(o.millis()), "status": o.invoiceStatus, "expiresAt": s.stamp(o.expiresAt),
		"endpoints": fiber.Map{
			"order":         base + "/api/commerce/merchant/orders/" + o.id,
			"invoiceStatus": base + "/api/commerce/merchant/invoices/" + o.invoiceID + "/status",
		},
	}
}

// simulate is POST /api/commerce/devnet/orders/{id}/simulate.
func (s *Server) simulate(c *fiber.Ctx) error {
	if s.cfg.Environment != "devnet" {
		return forbidden("The simulator exists in devnet only")
	}
	var t Transition
	if err := decodeLoose(c.Body(), &t); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders.byID[c.Params("id")]
	if !ok {
		return unknown("Order")
	}
	if err := s.moveLocked(o, t, s.rand); err != nil {
		return err
	}
	return answer(c, fiber.Map{"order": s.orderObject(o)})
}
