package devnet

import (
	"net/http"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// A client takes the time from an answer's Date, and holds it against created.
func TestDateIsByTheDevnetsClock(t *testing.T) {
	for _, offset := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		r := start(t, Config{ClockOffset: offset})
		r.ok("POST", "/_devnet/orders", `{"customer_id":"cust_1"}`, nil)
		conn, upgraded, err := websocket.DefaultDialer.Dial("ws://"+r.addr+"/ws/commerce/events", http.Header{"X-Api-Key": {DefaultAPIKey}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close() // only its answer is of interest
		for _, path := range []string{"/api/v1/events?limit=1", "/api/v1/nothing", "/ws/commerce/events"} {
			_, _, header := r.call("GET", path, "")
			if path == "/ws/commerce/events" {
				header = upgraded.Header
			}
			got, err := http.ParseTime(header.Get("Date"))
			if err != nil || time.Since(got.Add(-offset)).Abs() > 5*time.Second {
				t.Errorf("offset %v: the Date of %s is %v (%v), want %v off", offset, path, got, err, offset)
			}
		}
		var list struct {
			Data struct {
				Data []struct{ Created int64 }
			}
		}
		r.ok("GET", "/api/v1/events?limit=1", "", &list)
		if len(list.Data.Data) != 1 || time.Since(time.Unix(list.Data.Data[0].Created, 0).Add(-offset)).Abs() > 5*time.Second {
			t.Errorf("offset %v: events %+v, want one, created as far off", offset, list.Data.Data)
		}
	}
}
