package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/valyala/fasthttp"

	"pepay-gateway/gateway"
)

const snapshotJSON = `{"orderId":"o 1","invoiceId":"i1","networkEnvironment":"devnet","createdAt":1767225000,"updatedAt":"2026-01-01T00:00:00.000Z",` +
	`"customerId":"c1","walletAddress":"` + wallet + `","walletNetwork":"bsc","status":"shipped","totalAmountUsd":"10.00", "n":1.10}`

func TestOrder(t *testing.T) {
	f := newFake(t)
	f.onOther = func(c *fasthttp.RequestCtx) {
		if got, want := string(c.RequestURI()), "/api/commerce/merchant/orders/o%201"; got != want {
			t.Errorf("URI = %s, want %s", got, want)
		}
		fmt.Fprintf(c, `{"success":true,"data":{"order":%s}}`, snapshotJSON)
	}
	s := newSource(t, f)
	info, err := s.Order(t.Context(), "o 1")
	if err != nil {
		t.Fatal(err)
	}
	e := info.Event
	want := gateway.Keys{Order: "o 1", Invoice: "i1", Customer: "c1", Wallet: strings.ToLower(wallet), Network: "bsc"}
	if diff := cmp.Diff(want, e.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if e.Version != (gateway.Version{Millis: base * 1000}) || info.Updated.Unix() != base || e.Object != gateway.ObjectOrder || e.Type != "commerce.order.updated" {
		t.Errorf("event = %+v, updated %v, want an order's event of %d", e, info.Updated, base)
	}
	if !strings.HasPrefix(e.ID, "gw_") || len(e.ID) != 19 {
		t.Errorf("ID = %q, want gw_ and 16 hex digits", e.ID)
	}
	if !strings.Contains(string(e.Data), snapshotJSON[1:]) {
		t.Errorf("data = %s, want the snapshot's own bytes in it", e.Data)
	}
	var decoded struct {
		ID, Object, Type string
		Created          int64
		Data             struct{ Object map[string]any }
	}
	if err := json.Unmarshal(e.Data, &decoded); err != nil {
		t.Fatal(err)
	}
	o := decoded.Data.Object
	if decoded.ID != e.ID || decoded.Object != "event" || decoded.Created != base || o["object"] != "commerce_order" || o["id"] != "o 1" || o["invoice_id"] != "i1" || o["status"] != "shipped" {
		t.Errorf("data = %s, want an event of the order", e.Data)
	}
	again, err := s.Order(t.Context(), "o 1")
	if err != nil || again.Event.ID == e.ID {
		t.Errorf("second look-up = %q, %v, want another id, nil", again.Event.ID, err)
	}
}

func TestOrderFailures(t *testing.T) {
	tests := []struct {
		name, id string
		status   int
		body     string
		want     error // nil: any other
	}{
		{"404", "o1", 404, `{"error":"x"}`, gateway.ErrNotFound},
		{"410", "o1", 410, `{"error":"x"}`, gateway.ErrNotFound},
		{"400", "undefined", 400, `{"error":"x"}`, gateway.ErrUnusable},
		{"422", "undefined", 422, `{"error":"x"}`, gateway.ErrUnusable},
		{"403", "o1", 403, `{"error":"x"}`, nil},
		{"invalid id", "a\nb", 200, `{}`, gateway.ErrNotFound},
		{"path trick", "..", 200, `{}`, gateway.ErrNotFound},
		{"500", "o1", 500, markerKey, nil},
		{"another order", "o1", 200, `{"data":{"orderId":"o2"}}`, gateway.ErrUnusable},
		{"no order", "o1", 200, `{"data":{}}`, gateway.ErrUnusable},
		{"id given twice", "o1", 200, `{"data":{"orderId":"o1","orderId":"o2"}}`, gateway.ErrUnusable},
		{"another object", "o1", 200, `{"data":{"object":"invoice","id":"o1"}}`, gateway.ErrUnusable},
		{"not JSON", "o1", 200, `<html>`, nil},
		{"too deep", "o1", 200, `{"data":{"orderId":"o1","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, nil},
		{"too large", "o1", 200, `{"data":{"orderId":"o1","x":"` + strings.Repeat("x", maxOrderBytes) + `"}}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.onOther = func(c *fasthttp.RequestCtx) { c.SetStatusCode(tt.status); c.SetBodyString(tt.body) }
			_, err := newSource(t, f).Order(t.Context(), tt.id)
			for _, named := range []error{gateway.ErrNotFound, gateway.ErrUnusable} {
				if err == nil || errors.Is(err, named) != (named == tt.want) {
					t.Errorf("Order() = %v, want an error, and of the two named ones %v", err, tt.want)
				}
			}
			if err != nil && strings.Contains(err.Error(), markerKey) {
				t.Errorf("Order()'s error holds a secret: %v", err)
			}
		})
	}
}

// All look-ups tell how long the upstream asks to be left alone.
func TestLookUpsTellWhatTheUpstreamAsksFor(t *testing.T) {
	f := newFake(t)
	f.onOther = func(c *fasthttp.RequestCtx) {
		c.Response.Header.Set("Retry-After", "7")
		c.SetStatusCode(http.StatusTooManyRequests)
	}
	s := newSource(t, f)
	_, order := s.Order(t.Context(), "o1")
	_, orders := s.OrdersOf(t.Context(), "c1", 10)
	_, invoice := s.OrderOfInvoice(t.Context(), "i1")
	for name, err := range map[string]error{"order": order, "orders": orders, "invoice": invoice} {
		var asks interface{ RetryAfter() time.Duration }
		if !errors.As(err, &asks) || asks.RetryAfter() != 7*time.Second {
			t.Errorf("%s: %v does not tell of 7 s", name, err)
		}
	}
}

func TestOrderOfInvoice(t *testing.T) {
	tests := []struct {
		body, want string
		err        bool
	}{
		{`{"success":true,"data":{"invoiceId":"i1","orderId":"o1","payment":{},"order":{"orderId":"o1"}}}`, "o1", false},
		{`{"data":{"invoiceId":"i1","order":{"orderId":"o1"}}}`, "o1", false},
		{`{"invoice_id":"i1","order_id":"o1"}`, "o1", false},
		{`{"data":{"invoiceId":"i2","orderId":"o1"}}`, "", true},
		{`{"data":{"invoiceId":"i1","orderId":null}}`, "", true},
	}
	for _, tt := range tests {
		f := newFake(t)
		f.onOther = func(c *fasthttp.RequestCtx) {
			if got, want := string(c.Path()), "/api/commerce/merchant/invoices/i1/status"; got != want {
				t.Errorf("path = %s, want %s", got, want)
			}
			c.SetBodyString(tt.body)
		}
		got, err := newSource(t, f).OrderOfInvoice(t.Context(), "i1")
		if got != tt.want || (err != nil) != tt.err {
			t.Errorf("OrderOfInvoice() with %s = %q, %v, want %q", tt.body, got, err, tt.want)
		}
	}
}

func TestOrdersOf(t *testing.T) {
	f := newFake(t)
	f.onOther = func(c *fasthttp.RequestCtx) {
		q := c.QueryArgs()
		switch {
		case string(c.Path()) == "/api/commerce/merchant/orders/bare":
			c.SetBodyString(`{"data":{"orderId":"bare","customerId":"c1","updatedAt":1767225601}}`)
		case string(q.Peek("customer_id")) != "c1":
			t.Errorf("customer_id = %s, want c1", q.Peek("customer_id"))
		case string(q.Peek("offset")) == "0":
			c.SetBodyString(`{"success":true,"data":{"orders":[
				{"orderId":"old","customerId":"c1","updatedAt":1767225600},
				{"orderId":"foreign","customerId":"c2","updatedAt":1767225609},
				{"orderId":"bare","updatedAt":1767225601}],"pagination":{"limit":3,"offset":0,"count":3}}}`)
		case string(q.Peek("offset")) == "3":
			c.SetBodyString(`{"success":true,"data":{"orders":[{"orderId":"new","customerId":"c1","updatedAt":1767225608}],"pagination":{"limit":3}}}`)
		default:
			t.Errorf("unexpected request %s", c.RequestURI())
		}
	}
	s := newSource(t, f)
	for limit, want := range map[int][]string{10: {"new", "bare", "old"}, 3: {"new", "bare", "old"}, 0: nil} {
		infos, err := s.OrdersOf(t.Context(), "c1", limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range infos {
			got = append(got, i.Event.Keys.Order)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("orders with limit %d (-want +got):\n%s", limit, diff)
		}
	}
}

func TestSourceConcurrentUse(t *testing.T) {
	f := newFake(t)
	f.onOther = func(c *fasthttp.RequestCtx) { c.SetBodyString(`{"data":{"orderId":"o1","invoiceId":"i1"}}`) }
	s, k := newSource(t, f), &sink{}
	start(t, s, gateway.UpstreamCursor{}, k)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := s.Order(context.Background(), "o1"); err != nil {
					t.Errorf("Order() = %v, want nil", err)
				}
				if _, err := s.OrderOfInvoice(context.Background(), "i1"); err != nil {
					t.Errorf("OrderOfInvoice() = %v, want nil", err)
				}
				_ = s.Stats()
			}
		})
	}
	wg.Wait()
}
