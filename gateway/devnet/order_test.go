package devnet

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"
)

const refundWallet = "0x00000000000000000000000000000000000000a1"

func TestTransitions(t *testing.T) {
	happy := []string{PaymentConfirmed, PaymentSettled, Placed, Shipped, DeliveryConfirmed}
	every := append([]string{Failed, Cancelled, Refunded, "", "exploded"}, happy...)
	for _, tc := range []struct {
		path  []string
		want  string
		legal []string // next
	}{
		{nil, "pending_payment", []string{PaymentConfirmed}},
		{happy[:1], "processing", []string{PaymentSettled, Failed, Refunded}},
		{happy[:2], "processing", []string{Placed, Failed, Refunded}},
		{happy[:3], "placed", []string{Shipped, Cancelled, Refunded}},
		{happy[:4], "shipped", []string{DeliveryConfirmed, Refunded}},
		{happy, "delivered", []string{Refunded}},
		{[]string{PaymentConfirmed, Failed}, "failed", []string{Refunded}},
		{[]string{PaymentConfirmed, Failed, Refunded}, "failed", nil},
		{[]string{PaymentConfirmed, PaymentSettled, Placed, Cancelled}, "cancelled", []string{Refunded}},
	} {
		t.Run(fmt.Sprint(tc.path), func(t *testing.T) {
			s := New(Config{}, discard())
			walk := func() Order {
				o, err := s.CreateOrder(NewOrder{CustomerID: "cust_1", RefundWallet: refundWallet})
				for _, to := range tc.path {
					if err == nil {
						o, err = s.Simulate(o.ID, Transition{To: to})
					}
				}
				if err != nil || o.Status != tc.want {
					t.Fatalf("order = %v, %v, want %s", o.Status, err, tc.want)
				}
				return o
			}
			legal := map[string]bool{}
			for _, to := range tc.legal {
				legal[to] = true
			}
			for _, to := range every {
				o, before := walk(), s.State().Events
				_, err := s.Simulate(o.ID, Transition{To: to})
				if legal[to] != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
					t.Errorf("%q after %v = %v, want legal %v", to, tc.path, err, legal[to])
				}
				if after := s.State().Events; err != nil && after != before {
					t.Errorf("%q emitted %d events though illegal, want 0", to, after-before)
				}
			}
		})
	}
}

func TestSimulateInput(t *testing.T) {
	s := New(Config{}, discard())
	o, err := s.CreateOrder(NewOrder{CustomerID: "cust_1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Simulate(o.ID, Transition{To: PaymentConfirmed, WalletAddress: "So1ana"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("wallet that is none on bsc = %v, want %v", err, ErrInvalid)
	}
	if _, err := s.Simulate("order_none", Transition{To: PaymentConfirmed}); !errors.Is(err, ErrUnknownOrder) {
		t.Errorf("unknown order = %v, want %v", err, ErrUnknownOrder)
	}
	if _, err := s.Simulate(o.ID, Transition{To: PaymentConfirmed, WalletNetwork: "solana", WalletAddress: "So1ana"}); err != nil {
		t.Errorf("solana wallet = %v, want nil", err)
	}
	if _, err := s.Simulate(o.ID, Transition{To: Refunded}); !errors.Is(err, ErrInvalid) {
		t.Errorf("refund without destination = %v, want %v", err, ErrInvalid)
	}
}

func TestInvoiceExpires(t *testing.T) {
	r := start(t, Config{InvoiceTTL: 50 * time.Millisecond})
	c := r.dial("types=invoice.*")
	o := r.create("cust_1")
	c.wantEvent(typeInvoiceCreated, "unpaid")
	if got := c.wantEvent(typeInvoiceUpdated, "expired"); got.Data.Object["commerce_order_id"] != o.ID {
		t.Errorf("expired invoice = %v, want that of order %s", got.Data.Object, o.ID)
	}
	if _, err := r.Simulate(o.ID, Transition{To: PaymentConfirmed}); !errors.Is(err, ErrInvalid) {
		t.Errorf("paying an expired invoice = %v, want %v", err, ErrInvalid)
	}
	if got, err := r.Order(o.ID); err != nil || got.Status != statusPending {
		t.Errorf("order = %v, %v, want it pending_payment still", got.Status, err)
	}
}

func TestPaidInvoiceDoesNotExpire(t *testing.T) {
	s := New(Config{InvoiceTTL: time.Nanosecond}, discard())
	o, err := s.CreateOrder(NewOrder{CustomerID: "cust_1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Simulate(o.ID, Transition{To: PaymentConfirmed}); err != nil {
		t.Fatal(err)
	}
	before := s.State().Events
	s.expireInvoices()
	if got := s.State().Events; got != before {
		t.Errorf("expiry emitted %d events, want 0", got-before)
	}
}

func TestOrdersAreBounded(t *testing.T) {
	s := New(Config{MaxOrders: 8, Retention: 8}, discard())
	var first Order
	for i := range 100 {
		o, err := s.CreateOrder(NewOrder{CustomerID: "cust_1"})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = o
		}
	}
	b := s.orders
	if n := len(b.list); n > 9 || len(b.byID) != n || len(b.byInvoice) != n || len(b.pending) != n {
		t.Errorf("kept %d, %d, %d, %d orders, want at most 9 everywhere", n, len(b.byID), len(b.byInvoice), len(b.pending))
	}
	if _, err := s.Order(first.ID); !errors.Is(err, ErrUnknownOrder) {
		t.Errorf("first order = %v, want %v", err, ErrUnknownOrder)
	}
}

func TestDirectOrders(t *testing.T) {
	r := start(t, Config{})
	var got Order
	r.ok("POST", "/_devnet/orders", `{"customer_id":"cust_9","status":"shipped","age_seconds":7200,"silent":true}`, &got)
	if got.Status != "shipped" || time.Since(got.CreatedAt) < 2*time.Hour {
		t.Errorf("order = %+v, want shipped, two hours old", got)
	}
	if n := r.State().Events; n != 0 {
		t.Errorf("silent order emitted %d events, want 0", n)
	}
	var one struct {
		Data struct{ Order map[string]any }
	}
	r.ok("GET", "/api/commerce/merchant/orders/"+got.ID, "", &one)
	if o := one.Data.Order; o["customerId"] != "cust_9" || o["status"] != "shipped" || o["id"] != got.ID {
		t.Errorf("GET order = %v, want the silent one", o)
	}
	for _, body := range []string{`{}`, `{"customer_id":"c","status":"gone"}`, `{"customer_id":"c","age_seconds":-1}`, `{"customer_id":"c","sillent":true}`} {
		if status, _, _ := r.call("POST", "/_devnet/orders", body); status != 400 {
			t.Errorf("order %s = %d, want 400", body, status)
		}
	}
}

func TestCheckoutAndReads(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	var est struct {
		Data struct {
			EstimateID     string `json:"estimateId"`
			TotalAmountUSD string `json:"totalAmountUsd"`
		}
	}
	r.ok("POST", "/api/commerce/merchant/checkout/estimate", `{"items":[{"title":"Chair","quantity":2,"price":"10.50"}]}`, &est)
	if got, want := est.Data.TotalAmountUSD, "23.10"; got != want {
		t.Errorf("total = %s, want %s", got, want)
	}
	var addr struct{ Data struct{ AddressID string } }
	r.ok("POST", "/api/commerce/merchant/checkout/address", `{"city":"Nowhere"}`, &addr)
	var inv struct{ Data map[string]any }
	r.ok("POST", "/api/commerce/merchant/checkout/invoice", fmt.Sprintf(
		`{"customer_id":"cust_1","estimateId":%q,"addressId":%q,"refundDestinationWalletAddressBsc":%q}`,
		est.Data.EstimateID, addr.Data.AddressID, refundWallet), &inv)
	if inv.Data["status"] != "unpaid" || inv.Data["customerId"] != "cust_1" || inv.Data["amount"] != "23.10" {
		t.Errorf("invoice = %v, want 23.10 unpaid by cust_1", inv.Data)
	}
	c.wantEvent(typeOrderCreated, "pending_payment")
	c.wantEvent(typeInvoiceCreated, "unpaid")

	id, invoice := str(inv.Data["orderId"]), str(inv.Data["invoiceId"])
	path := "/api/commerce/devnet/orders/" + id + "/simulate"
	if status, body, _ := r.call("POST", path, `{"transitionTo":"shipped"}`); status != 400 {
		t.Errorf("illegal transition = %d %s, want 400", status, body)
	}
	var sim struct {
		Data struct{ Order map[string]any }
	}
	r.ok("POST", path, `{"transitionTo":"payment_confirmed"}`, &sim)
	if sim.Data.Order["status"] != "processing" {
		t.Errorf("simulate = %v, want processing", sim.Data.Order["status"])
	}
	r.ok("POST", path, `{"transitionTo":"payment_settled"}`, nil)
	r.ok("POST", path, `{"transitionTo":"placed"}`, nil)
	r.ok("POST", path, `{"transitionTo":"shipped","tracking":{"carrier":"DHL"}}`, nil)

	var st struct{ Data map[string]any }
	r.ok("GET", "/api/commerce/merchant/invoices/"+invoice+"/status", "", &st)
	if o, _ := st.Data["order"].(map[string]any); st.Data["orderId"] != id || o["status"] != "shipped" {
		t.Errorf("invoice status = %v, want order %s shipped", st.Data, id)
	}
	r.create("cust_2")
	for query, want := range map[string]int{
		"": 2, "customer_id=cust_1": 1, "status=shipped": 1, "status=failed": 0, "limit=1": 1, "offset=1": 1,
		"walletNetwork=bsc": 1, "createdFrom=99999999999": 0, "createdTo=2001-01-01T00:00:00Z": 0, "retailer=other": 0,
	} {
		var l struct {
			Data struct {
				Orders     []map[string]any
				Pagination map[string]int
			}
		}
		r.ok("GET", "/api/commerce/merchant/orders?"+query, "", &l)
		if got := len(l.Data.Orders); got != want {
			t.Errorf("orders?%s = %d, want %d", query, got, want)
		}
	}
	for _, path := range []string{
		"/api/commerce/merchant/orders?status=x", "/api/commerce/merchant/orders?limit=0", "/api/commerce/merchant/orders?createdFrom=x",
	} {
		if got, _, _ := r.call("GET", path, ""); got != 400 {
			t.Errorf("%s = %d, want 400", path, got)
		}
	}
	for _, path := range []string{"orders/none", "invoices/none/status"} {
		if got, _, _ := r.call("GET", "/api/commerce/merchant/"+path, ""); got != 404 {
			t.Errorf("%s = %d, want 404", path, got)
		}
	}
	for _, body := range []string{`{}`, `{"customer_id":"c","estimateId":"est_none"}`, `{"customer_id":"c","refundDestinationWalletAddressBsc":"x"}`} {
		if got, _, _ := r.call("POST", "/api/commerce/merchant/checkout/invoice", body); got != 400 {
			t.Errorf("checkout %s = %d, want 400", body, got)
		}
	}
}

func TestMainnetHasNoSimulator(t *testing.T) {
	r := start(t, Config{Environment: "mainnet"})
	o := r.create("cust_1")
	if got, _, _ := r.call("POST", "/api/commerce/devnet/orders/"+o.ID+"/simulate", `{"transitionTo":"payment_confirmed"}`); got != 403 {
		t.Errorf("simulate on mainnet = %d, want 403", got)
	}
	page, _ := r.list(url.Values{"environment": {"mainnet"}})
	if len(page) != 2 {
		t.Errorf("%d events, want 2", len(page))
	}
}
