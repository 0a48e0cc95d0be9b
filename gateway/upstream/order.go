package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"pepay-gateway/gateway"
)

const (
	merchantPath   = "/api/commerce/merchant"
	maxOrderBytes  = gateway.MaxEventBytes
	maxOrdersBytes = 4 << 20
	ordersPage     = 100
	maxOrdersPages = 10           // of one look-up, should the upstream ignore the filter or the offset
	orderVersion   = "2025-12-16" // api_version of the events we make of orders
)

// Order implements gateway.Source. The answer is checked to be about the order
// that was asked for.
func (s *Source) Order(ctx context.Context, id string) (gateway.OrderInfo, error) {
	info, err := s.order(ctx, id)
	if err != nil {
		return gateway.OrderInfo{}, fmt.Errorf("upstream: order: %w", err)
	}
	return info, nil
}

func (s *Source) order(ctx context.Context, id string) (gateway.OrderInfo, error) {
	data, err := s.lookUp(ctx, "order", "/orders/"+url.PathEscape(id), id, nil, maxOrderBytes)
	if err != nil {
		return gateway.OrderInfo{}, err
	}
	snapshot := data
	if nested := members(data, "order").value[0]; nested.IsObject() {
		snapshot = nested
	}
	info, err := orderInfo(snapshot)
	if err == nil && info.Event.Keys.Order != id {
		err = fmt.Errorf("%w: about another order", gateway.ErrUnusable)
	}
	return info, err
}

// OrderOfInvoice implements gateway.Source.
func (s *Source) OrderOfInvoice(ctx context.Context, invoice string) (string, error) {
	data, err := s.lookUp(ctx, "invoice", "/invoices/"+url.PathEscape(invoice)+"/status", invoice, nil, maxOrderBytes)
	if err != nil {
		return "", fmt.Errorf("upstream: order of invoice: %w", err)
	}
	if answered := key(data, "invoiceId", "invoice_id"); answered != "" && answered != invoice {
		return "", fmt.Errorf("upstream: order of invoice: %w: about another invoice", gateway.ErrUnusable)
	}
	order := key(data, "orderId", "order_id")
	if order == "" {
		order = key(members(data, "order").value[0], "orderId", "order_id", "id")
	}
	if order == "" {
		return "", fmt.Errorf("upstream: order of invoice: %w", gateway.ErrNotFound)
	}
	return order, nil
}

// OrdersOf implements gateway.Source. An order that the upstream lists as another
// customer's is left out, in case it ignores the filter; one that it lists
// without a customer is looked up.
func (s *Source) OrdersOf(ctx context.Context, customer string, limit int) ([]gateway.OrderInfo, error) {
	var infos []gateway.OrderInfo
	for pages, offset := 0, 0; len(infos) < limit && pages < maxOrdersPages; pages++ {
		query := url.Values{
			"customer_id": {customer}, "limit": {strconv.Itoa(ordersPage)}, "offset": {strconv.Itoa(offset)},
		}
		data, err := s.lookUp(ctx, "orders", "/orders", customer, query, maxOrdersBytes)
		if err != nil {
			return nil, fmt.Errorf("upstream: orders: %w", err)
		}
		rows := members(data, "orders").value[0].Array()
		for _, row := range rows {
			info, err := s.rowInfo(ctx, row, customer)
			if err != nil {
				return nil, fmt.Errorf("upstream: orders: %w", err)
			}
			if info.Event.Keys.Customer == customer {
				infos = append(infos, info)
			}
		}
		size := ordersPage
		if n := data.Get("pagination.limit").Int(); n > 0 {
			size = int(min(n, ordersPage)) // what the upstream made of ours
		}
		if offset += len(rows); len(rows) < size {
			break
		}
	}
	slices.SortStableFunc(infos, func(a, b gateway.OrderInfo) int { return b.Updated.Compare(a.Updated) })
	return infos[:min(len(infos), max(limit, 0))], nil
}

// rowInfo makes the most of a row of the list. A row that is no order is an
// empty OrderInfo.
func (s *Source) rowInfo(ctx context.Context, row gjson.Result, customer string) (gateway.OrderInfo, error) {
	info, err := orderInfo(row)
	if err != nil {
		return gateway.OrderInfo{}, nil // one bad row must not hide the others
	}
	if info.Event.Keys.Customer != "" {
		return info, nil
	}
	info, err = s.order(ctx, info.Event.Keys.Order)
	if errors.Is(err, gateway.ErrNotFound) {
		return gateway.OrderInfo{}, nil
	}
	return info, err
}

// lookUp asks for something under the merchant's orders. id is what it is about.
func (s *Source) lookUp(ctx context.Context, what, path, id string, query url.Values, limit int64) (gjson.Result, error) {
	if !gateway.ValidID(id) || id == "." || id == ".." {
		return gjson.Result{}, gateway.ErrNotFound
	}
	a, err := s.request(ctx, what, http.MethodGet, merchantPath+path, query, "", limit)
	if f := (*failure)(nil); errors.As(err, &f) {
		switch f.status {
		case http.StatusNotFound, http.StatusGone:
			return gjson.Result{}, gateway.ErrNotFound
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			return gjson.Result{}, fmt.Errorf("%w: %w", gateway.ErrUnusable, f)
		}
	}
	if err != nil {
		return gjson.Result{}, err
	}
	return dataOf(what, a.body)
}

// orderInfo makes an event of an order's snapshot: the snapshot's own bytes, in
// an envelope, with what an event's object has and a snapshot may lack.
func orderInfo(snapshot gjson.Result) (gateway.OrderInfo, error) {
	m := members(snapshot, "id", "orderId", "order_id", "object", "invoice_id", "invoiceId",
		"networkEnvironment", "environment", "updatedAt", "updated_at", "createdAt", "created_at")
	keys := keysOf(snapshot, gateway.ObjectOrder, "")
	order := keys.Order
	if order == "" || m.again != 0 {
		return gateway.OrderInfo{}, fmt.Errorf("%w: not one order", gateway.ErrUnusable)
	}
	var updated int64
	for _, at := range m.value[8:] {
		if updated = seconds(at); updated > 0 {
			break
		}
	}
	live := text(m.value[6]) == "mainnet" || text(m.value[7]) == "mainnet"

	var b bytes.Buffer
	fmt.Fprintf(&b, `{"id":%q,"object":"event","api_version":%q,"created":%d,"type":"commerce.order.updated","livemode":%t,"data":{"object":{`,
		newEventID(), orderVersion, updated, live)
	add := func(name, value string) {
		text, _ := json.Marshal(value) // a string always can
		fmt.Fprintf(&b, `%q:%s,`, name, text)
	}
	if !m.value[3].Exists() {
		add("object", "commerce_order")
	}
	if !m.value[0].Exists() {
		add("id", order)
	}
	if keys.Invoice != "" && !m.value[4].Exists() {
		add("invoice_id", keys.Invoice)
	}
	b.WriteString(snapshot.Raw[1:]) // not empty: it has an id
	b.WriteString("}}")

	raw := b.Bytes()
	root, err := parse(raw)
	if err != nil {
		return gateway.OrderInfo{}, err
	}
	e, err := decodeEvent(raw, root, time.Now())
	if err != nil {
		return gateway.OrderInfo{}, err
	}
	if e.Object != gateway.ObjectOrder {
		return gateway.OrderInfo{}, fmt.Errorf("%w: not an order", gateway.ErrUnusable)
	}
	info := gateway.OrderInfo{Event: e.Event}
	if updated > 0 {
		info.Updated = time.Unix(updated, 0)
	}
	return info, nil
}

// newEventID names an event that the upstream never had.
func newEventID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "gw_" + hex.EncodeToString(b[:])
}
