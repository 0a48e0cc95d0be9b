package devnet

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"testing"
)

func TestListHasTheStreamsBytes(t *testing.T) {
	for _, f := range []Faults{{}, {Minimal: true}, {ISOTimestamps: true}} {
		r := start(t, Config{})
		r.set(f)
		c := r.dial("")
		r.move(r.create("cust_<1>&"), PaymentConfirmed, PaymentSettled, Placed)
		page, more := r.list(url.Values{"limit": {"100"}})
		if more {
			t.Error("has_more = true, want false")
		}
		slices.Reverse(page)
		for i, ev := range r.Record("") {
			sent := c.next()
			if string(sent) != ev.Raw || !bytes.Equal(sent, page[i]) {
				t.Errorf("event %d: sent %s, listed %s, recorded %s", i, sent, page[i], ev.Raw)
			}
			_, one, _ := r.call("GET", "/api/v1/events/"+ev.ID, "")
			if want := `{"success":true,"data":` + ev.Raw + `}`; string(one) != want {
				t.Errorf("retrieved %s, want %s", one, want)
			}
		}
	}
}

func TestListPaging(t *testing.T) {
	for _, newest := range []bool{false, true} {
		r := start(t, Config{EndingBeforeNewest: newest})
		for range 6 {
			r.create("cust_1")
		}
		var all []string // newest first
		for _, ev := range r.Record("") {
			all = append([]string{ev.ID}, all...)
		}
		for _, tc := range []struct {
			name  string
			query url.Values
			want  []string
			more  bool
		}{
			{"default limit", url.Values{}, all[:10], true},
			{"all", url.Values{"limit": {"12"}}, all, false},
			{"older", url.Values{"limit": {"3"}, "starting_after": {all[4]}}, all[5:8], true},
			{"oldest", url.Values{"limit": {"3"}, "starting_after": {all[8]}}, all[9:], false},
			{"before all", url.Values{"starting_after": {"evt_1-1"}}, nil, false},
			{"newer", url.Values{"limit": {"3"}, "ending_before": {all[8]}}, choosePage(newest, all[:3], all[5:8]), true},
			{"newest", url.Values{"limit": {"3"}, "ending_before": {all[3]}}, all[:3], false},
			{"type", url.Values{"type": {"invoice.*"}, "limit": {"1"}}, all[:1], true},
			{"none", url.Values{"type": {"invoice_payment.*"}}, nil, false},
			{"other environment", url.Values{"environment": {"mainnet"}}, nil, false},
			{"future", url.Values{"created[gte]": {"99999999999"}}, nil, false},
			{"past", url.Values{"created[lte]": {"1"}}, nil, false},
			{"window", url.Values{"created[gte]": {"1"}, "created[lte]": {"99999999999"}, "limit": {"100"}}, all, false},
		} {
			t.Run(tc.name+" "+strconv.FormatBool(newest), func(t *testing.T) {
				page, more := r.list(tc.query)
				if got := ids(t, page); !slices.Equal(got, tc.want) || more != tc.more {
					t.Errorf("page = %v, %v, want %v, %v", got, more, tc.want, tc.more)
				}
			})
		}
	}
}

func choosePage(cond bool, yes, no []string) []string {
	if cond {
		return yes
	}
	return no
}

func TestListByInvoice(t *testing.T) {
	r := start(t, Config{})
	r.create("cust_1")
	o := r.create("cust_1")
	r.create("cust_1")
	page, _ := r.list(url.Values{"invoice_id": {o.InvoiceID}})
	if len(page) != 2 || view(t, page[0]).Data.Object["id"] != o.InvoiceID || view(t, page[1]).Data.Object["id"] != o.ID {
		t.Errorf("page = %s, want the invoice's event, then its order's", page)
	}
}

func TestListRefusals(t *testing.T) {
	r := start(t, Config{})
	for query, want := range map[string]int{
		"limit=0": 400, "limit=101": 400, "limit=x": 400, "type=nope": 400, "starting_after=x": 400, "ending_before=evt_1": 400,
		"starting_after=evt_1-1&ending_before=evt_2-1": 400, "created[gte]=x": 400, "created%5Blte%5D=-1": 400,
		"environment=moon": 400, "colour=red": 200, "created%5Bgte%5D=1": 200,
	} {
		if got, body, _ := r.call("GET", "/api/v1/events?"+query, ""); got != want {
			t.Errorf("list?%s = %d %s, want %d", query, got, body, want)
		}
	}
	for _, path := range []string{"/api/v1/events", "/api/v1/events/evt_1-1", "/api/commerce/merchant/orders"} {
		for key, want := range map[string]int{"": 401, "ck_wrong": 401, "pk_1": 403} {
			got, body, _ := r.call("GET", path, "", "x-api-key", key)
			var e struct {
				Success bool
				Error   struct{ Code, Message string }
			}
			if err := json.Unmarshal(body, &e); got != want || err != nil || e.Error.Code == "" {
				t.Errorf("%s with key %q = %d %s, want %d with a code", path, key, got, body, want)
			}
		}
	}
	if got, _, _ := r.call("GET", "/api/v1/events/evt_1-1", ""); got != 404 {
		t.Errorf("unknown event = %d, want 404", got)
	}
}
