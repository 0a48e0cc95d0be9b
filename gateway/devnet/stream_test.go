package devnet

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestStreamCarriesLifecycle(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("format=event_v1")
	o := r.create("cust_1")
	r.move(o, PaymentConfirmed, PaymentSettled, Placed, Shipped, DeliveryConfirmed)

	created := c.wantEvent(typeOrderCreated, "pending_payment")
	for key, want := range map[string]any{
		"object": "commerce_order", "id": o.ID, "orderId": o.ID, "invoice_id": o.InvoiceID, "invoiceId": o.InvoiceID,
		"customerId": "cust_1", "walletAddress": nil, "networkEnvironment": "devnet", "merchantId": 4217.0,
	} {
		if got := created.Data.Object[key]; got != want {
			t.Errorf("order.%s = %v, want %v", key, got, want)
		}
	}
	at, ok := parseEventID(created.ID)
	if !ok || created.Created != at.ms/1000 {
		t.Errorf("id %s with created %d, want floor(ms/1000)", created.ID, created.Created)
	}
	c.wantEvent(typeInvoiceCreated, "unpaid")
	c.wantEvent(typeOrderUpdated, "processing")
	c.wantEvent(typeInvoiceUpdated, "paid")
	c.wantEvent(typePaymentCreated, "confirmed")
	c.wantEvent(typeOrderUpdated, "processing")
	c.wantEvent(typePaymentUpdated, "confirmed")
	c.wantEvent(typeOrderUpdated, "placed")
	c.wantEvent(typeOrderUpdated, "shipped")
	c.wantEvent(typeOrderUpdated, "delivered")
}

func TestStreamFilters(t *testing.T) {
	r := start(t, Config{})
	a, b := r.create("cust_a"), r.create("cust_b")
	wallet := "0x00000000000000000000000000000000000000Aa"
	open := map[string]*client{}
	for name, query := range map[string]string{
		"order":    "order_id=" + a.ID,
		"invoice":  "invoice_id=" + a.InvoiceID,
		"customer": "customer_id=cust_a",
		"wallet":   "wallet_address=" + strings.ToLower(wallet),
		"network":  "wallet_network=base",
		"and":      "customer_id=cust_a&types=invoice.*",
		"types":    "types=invoice_payment.created,invoice.*",
	} {
		open[name] = r.dial(query)
	}
	if _, err := r.Simulate(b.ID, Transition{To: PaymentConfirmed, WalletNetwork: "bsc"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Simulate(a.ID, Transition{To: PaymentConfirmed, WalletNetwork: "base", WalletAddress: wallet}); err != nil {
		t.Fatal(err)
	}
	r.mark()
	all := []string{typeOrderUpdated, typeInvoiceUpdated, typePaymentCreated}
	for name, want := range map[string][]string{
		"order": all, "invoice": all, "customer": all, "wallet": all, "network": all,
		"and":   {typeInvoiceUpdated},
		"types": {typeInvoiceUpdated, typePaymentCreated, typeInvoiceUpdated, typePaymentCreated},
	} {
		got := []string{}
		for _, f := range open[name].toMark() {
			got = append(got, view(t, f).Type)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: types = %v, want %v", name, got, want)
		}
	}
}

func TestStreamFilterSelectsOwnEventsOnly(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("customer_id=cust_a")
	r.create("cust_b")
	o := r.create("cust_a")
	for range 2 {
		if got := view(t, c.next()).Data.Object; got["id"] != o.ID && got["commerce_order_id"] != o.ID {
			t.Errorf("object = %v, want one of order %s", got, o.ID)
		}
	}
}

func TestReplayIsStrictlyAfterSinceThenLive(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		from int // index of the first event replayed after since, the second
		ctl  bool
	}{
		{"strict", Config{}, 2, false},
		{"inclusive", Config{InclusiveSince: true}, 1, false},
		{"controls", Config{ReplayControls: true}, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, tc.cfg)
			r.move(r.create("cust_1"), PaymentConfirmed, PaymentSettled)
			past := r.Record("")
			c := r.dial("since=" + past[1].ID)
			if tc.ctl {
				c.wantEvent("replay.started", "")
			}
			for _, want := range past[tc.from:] {
				if got := c.next(); string(got) != want.Raw {
					t.Fatalf("replayed %s, want %s", got, want.Raw)
				}
			}
			if tc.ctl {
				c.wantEvent("replay.completed", "")
			}
			r.create("cust_2")
			c.wantEvent(typeOrderCreated, "pending_payment")
		})
	}
}

func TestReplayMissesNothingWhileEventsFlow(t *testing.T) {
	r := start(t, Config{})
	r.create("cust_1")
	since := r.Record("")[0].ID
	const orders = 300
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range orders {
			_, _ = r.CreateOrder(NewOrder{CustomerID: "cust_1"})
		}
	}()
	c := r.dial("since=" + since)
	<-done
	want := r.raws()[1:]
	for i, w := range want {
		if got := c.next(); !bytes.Equal(got, w) {
			t.Fatalf("frame %d = %s, want %s", i, got, w)
		}
	}
}

func TestSinceTooOldGetsControlAndSnapshot(t *testing.T) {
	r := start(t, Config{Retention: 6, Recorded: 1000, SnapshotSize: 3})
	for i := range 10 {
		r.create(fmt.Sprintf("cust_%d", i))
	}
	all := r.Record("")
	c := r.dial("since=" + all[0].ID)
	ctl := view(t, c.next())
	if ctl.Object != "ws_control" || ctl.Type != "replay.truncated" {
		t.Fatalf("first frame = %+v, want ws_control replay.truncated", ctl)
	}
	for _, want := range all[len(all)-3:] {
		if got := c.next(); string(got) != want.Raw {
			t.Fatalf("snapshot event %s, want %s", got, want.Raw)
		}
	}
	r.create("cust_live")
	c.wantEvent(typeOrderCreated, "pending_payment")

	last := r.dial("since=" + all[len(all)-5].ID)
	if got, want := view(t, last.next()).ID, all[len(all)-4].ID; got != want {
		t.Errorf("replay inside retention begins with %s, want %s", got, want)
	}
}

func TestSinceOfLastTrimmedEventLosesNothing(t *testing.T) {
	r := start(t, Config{Retention: 4, Recorded: 1000})
	for range 5 {
		r.create("cust_1")
	}
	all := r.Record("")
	c := r.dial("since=" + all[5].ID)
	if got, want := view(t, c.next()).ID, all[6].ID; got != want {
		t.Errorf("first frame %s, want %s", got, want)
	}
}

func TestSlowReaderIsCutAndHoldsNobodyUp(t *testing.T) {
	r := start(t, Config{QueueFrames: 4})
	slow := r.dial("")
	_ = slow // never reads
	big := `{"object":"huge","pad":"` + strings.Repeat("x", 1<<20) + `"}`
	r.until("slow stream cut", func() bool {
		if _, err := r.Emit(Frame{Frame: big}); err != nil {
			t.Error(err)
		}
		return r.State().Connections == 0
	})
}

func TestServeAgainKeepsState(t *testing.T) {
	r := start(t, Config{})
	c := r.dial("")
	o := r.create("cust_1")
	c.wantEvent(typeOrderCreated, "pending_payment")
	c.wantEvent(typeInvoiceCreated, "unpaid")
	since := r.Record("")[1].ID
	r.stop()
	if _, err := c.rest(); closeCode(err) != 1001 {
		t.Errorf("end at shutdown = %v, want close 1001", err)
	}
	r.move(o, PaymentConfirmed)
	r.serve()
	r.dial("since="+since).wantEvent(typeOrderUpdated, "processing")
}

func TestServeTwiceAtOnceIsRefused(t *testing.T) {
	r := start(t, Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := r.Serve(t.Context(), ln); err == nil {
		t.Error("second Serve() = nil, want an error")
	}
}

func TestServeReturnsListenerError(t *testing.T) {
	s := New(Config{}, discard())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	bad := failing{ln, errors.New("no more")}
	defer ln.Close()
	if err := s.Serve(ctx, bad); err == nil {
		t.Error("Serve() = nil, want the listener's error")
	}
}

type failing struct {
	net.Listener
	err error
}

func (f failing) Accept() (net.Conn, error) { return nil, f.err }

func TestPingIsAnswered(t *testing.T) {
	r := start(t, Config{PingInterval: 5 * time.Millisecond})
	c := r.dial("")
	pong, pinged := make(chan struct{}), make(chan struct{})
	var once, twice sync.Once
	c.conn.SetPongHandler(func(string) error { once.Do(func() { close(pong) }); return nil })
	c.conn.SetPingHandler(func(string) error { twice.Do(func() { close(pinged) }); return nil })
	if err := c.conn.WriteControl(9, []byte("x"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = c.rest() })
	<-pong
	<-pinged
	_ = c.conn.Close()
	reader.Wait()
}

func TestServerConcurrentUse(t *testing.T) {
	r := start(t, Config{InvoiceTTL: 20 * time.Millisecond, Retention: 100, MaxOrders: 50})
	if err := r.SetShop(Shop{OrdersPerSecond: 100, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	header := http.Header{"X-Api-Key": {DefaultAPIKey}}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 30 {
				o, err := r.CreateOrder(NewOrder{CustomerID: "cust_1"})
				if err != nil {
					t.Error(err)
				}
				_, _ = r.Simulate(o.ID, Transition{To: PaymentConfirmed}) // may have expired or been forgotten
				_ = r.SetFaults(Faults{Duplicate: j % 2, Minimal: i%2 == 0, Shuffle: j % 4})
				_, _ = r.Emit(Frame{Frame: "x", Repeat: 2})
				_, _ = r.State(), r.Faults()
			}
		})
		wg.Go(func() {
			for range 5 {
				conn, _, err := websocket.DefaultDialer.Dial("ws://"+r.addr+"/ws/commerce/events?since=evt_1-1", header)
				if err != nil {
					t.Error(err)
					return
				}
				_, _, _ = conn.ReadMessage() // or its end, when it is cut
				_ = conn.Close()
			}
			r.Cut(Ending{CloseCode: 1001})
		})
	}
	wg.Wait()
}
