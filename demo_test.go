package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pepay-gateway/gateway/devnet"
)

// testDemo is the shop of a dev whose local Pepay and gateway cannot be reached.
func testDemo(t testing.TB) *demo {
	t.Helper()
	away := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(away.Close)
	log := slog.New(slog.DiscardHandler)
	return newDemo(&dev{pepay: devnet.New(devnet.Config{}, log), pepayURL: away.URL, public: strings.TrimPrefix(away.URL, "http://"), log: log})
}

func TestStallEndsByItselfAndByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dev{pepay: devnet.New(devnet.Config{}, slog.New(slog.DiscardHandler))}
		silent := func(want bool) {
			t.Helper()
			synctest.Wait()
			if got := d.pepay.Faults().Silent; got != want {
				t.Errorf("silent = %t, want %t", got, want)
			}
		}
		d.unstall() // ends nothing
		silent(false)
		d.stall()
		time.Sleep(stallFor - time.Second)
		silent(true)
		time.Sleep(time.Second)
		silent(false)

		d.stall()
		time.Sleep(stallFor / 2)
		d.stall() // for another minute from now
		time.Sleep(stallFor - time.Second)
		silent(true)
		d.unstall()
		silent(false)
		d.stall()
		time.Sleep(time.Second) // when the one before would have ended
		silent(true)
		d.unstall()
	})
}

// The page shows what the backend charges.
func TestShopSellsWhatItsPageShows(t *testing.T) {
	w := httptest.NewRecorder()
	testDemo(t).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	page := w.Body.String()
	if got := strings.Count(page, "data-product="); got != 3 {
		t.Errorf("products on the page = %d, want 3", got)
	}
	for _, id := range []string{"lamp", "mug", "notebook"} {
		title, price := product(id)
		for _, want := range []string{fmt.Sprintf(`data-product="%s" data-price="%s"`, id, price), "$" + price, "<h2>" + title + "</h2>"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %s", want)
			}
		}
	}
}

func TestShopRefuses(t *testing.T) {
	m := testDemo(t)
	hers, err := m.dev.pepay.CreateOrder(devnet.NewOrder{CustomerID: "cust_alice"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, shopper, body string
		status                    int
	}{
		{"a token for nobody", "/token", "", `{}`, 401},
		{"a token for nobody's order", "/token", "", `{"order_id":"` + hers.ID + `"}`, 401},
		{"a token for somebody else's order", "/token", "cust_bob", `{"order_id":"` + hers.ID + `"}`, 404},
		{"a token for an order there is not", "/token", "cust_bob", `{"order_id":"x"}`, 404},
		{"a token for her own order, from a gateway that is away", "/token", "cust_alice", `{"order_id":"` + hers.ID + `"}`, 502},
		{"an empty basket", "/checkout", "cust_bob", `{}`, 400},
		{"what it does not sell", "/checkout", "cust_bob", `{"items":[{"product":"sofa","quantity":1}]}`, 400},
		{"too many", "/checkout", "cust_bob", `{"items":[{"product":"mug","quantity":11}]}`, 400},
		{"fewer than none", "/checkout", "cust_bob", `{"items":[{"product":"mug","quantity":-1}]}`, 400},
		{"no JSON", "/checkout", "cust_bob", `mug`, 400},
		{"an order while Pepay is away", "/checkout", "cust_bob", `{"items":[{"product":"mug","quantity":1}]}`, 502},
		{"a fault there is not", "/demo/faults/fire", "cust_bob", ``, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body))
			if tt.shopper != "" {
				r.AddCookie(cookie(tt.shopper))
			}
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			if got := w.Code; got != tt.status {
				t.Errorf("status = %d, want %d: %s", got, tt.status, w.Body)
			}
		})
	}
}
