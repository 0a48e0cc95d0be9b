package downstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pepay-gateway/auth"
)

// An asking is a token and what a query means beside it.
type asking struct {
	account       bool
	customer      string   // of the token
	orders        []string // of the token
	onlyOrders    []string // of the query
	onlyCustomers []string // of the query
	refused       bool     // the query is malformed
}

// may is the rule, from the protocol's page and nothing else: each of token and
// query may name customers and orders, all that are named must match, byte for byte,
// and a token that names nothing and is not the account's opens nothing.
func (a asking) may(order, customer string) bool {
	if !a.account && a.customer == "" && len(a.orders) == 0 {
		return false
	}
	matches := func(ids []string, id string) bool { return len(ids) == 0 || id != "" && slices.Contains(ids, id) }
	return (a.customer == "" || a.customer == customer) && matches(a.orders, order) &&
		matches(a.onlyOrders, order) && matches(a.onlyCustomers, customer)
}

func (a asking) status() int {
	escapes := func(claim, asked []string) bool {
		return len(claim) > 0 && slices.ContainsFunc(asked, func(id string) bool { return !slices.Contains(claim, id) })
	}
	var customers []string
	if a.customer != "" {
		customers = []string{a.customer}
	}
	switch {
	case a.refused:
		return http.StatusBadRequest
	case escapes(customers, a.onlyCustomers) || escapes(a.orders, a.onlyOrders):
		return http.StatusForbidden
	}
	return http.StatusOK
}

// Every token with every filter, through every door: the answer is refused where
// it must be, and shows exactly what it may.
func TestTokensAndFiltersShowExactlyWhatTheyMay(t *testing.T) {
	r := newRig(t, nil)
	ops := r.sse("snapshot=0", "X-Api-Key: "+opsKey)
	cursor := ops.want("hello").text("cursor")
	type owned struct{ order, customer string }
	orders := []owned{
		{"order_1", "alice"},
		{"order_10", "alice"},
		{"order_1 ", "alice "},
		{"Order_1", "Alice"},
		{"1", "1"},
		{"1.0", "1.0"},
		{"*", "*"},
		{"%", "%"},
		{"\u043erder_1", "\u0430lice"},
		{"order_2", "bob"},
		{"order_3", ""},
		{"alice", "order_1"},
		{"", "alice"},
	}
	events := map[string]owned{}
	for _, o := range orders {
		events[r.publish(o.order, o.customer).ID] = o
	}

	tokens := map[string]asking{
		"customer":                {customer: "alice"},
		"another customer":        {customer: "alice "},
		"customer star":           {customer: "*"},
		"order":                   {orders: []string{"order_1"}},
		"orders":                  {orders: []string{"order_1", "order_2"}},
		"customer and order":      {customer: "alice", orders: []string{"order_1"}},
		"customer and not theirs": {customer: "alice", orders: []string{"order_2"}},
		"account":                 {account: true},
	}
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat("order_id=o&", n), "&") }
	queries := map[string]asking{
		"":                                     {},
		"customer_id=alice":                    {onlyCustomers: []string{"alice"}},
		"customer_id=%61lice":                  {onlyCustomers: []string{"alice"}},
		"customer_id=alice+":                   {onlyCustomers: []string{"alice "}},
		"customer_id=alice%20":                 {onlyCustomers: []string{"alice "}},
		"customer_id=Alice":                    {onlyCustomers: []string{"Alice"}},
		"customer_id=%D0%B0lice":               {onlyCustomers: []string{"\u0430lice"}},
		"customer_id=*":                        {onlyCustomers: []string{"*"}},
		"customer_id=%25":                      {onlyCustomers: []string{"%"}},
		"customer_id=1":                        {onlyCustomers: []string{"1"}},
		"customer_id=alice&customer_id=b":      {onlyCustomers: []string{"alice", "b"}},
		"customer_id=alice,bob":                {onlyCustomers: []string{"alice,bob"}},
		"order_id=order_1":                     {onlyOrders: []string{"order_1"}},
		"order_id=order%5f1":                   {onlyOrders: []string{"order_1"}},
		"order_id=order_1&order_id=order_1":    {onlyOrders: []string{"order_1"}},
		"order_id=order_1&order_id=order_10":   {onlyOrders: []string{"order_1", "order_10"}},
		"order_id=order_1&order_id=order_2":    {onlyOrders: []string{"order_1", "order_2"}},
		"order_id=order_1,order_2":             {onlyOrders: []string{"order_1,order_2"}},
		"order_id=order_":                      {onlyOrders: []string{"order_"}},
		"order_id=order_1%20":                  {onlyOrders: []string{"order_1 "}},
		"order_id=order_1&customer_id=alice":   {onlyOrders: []string{"order_1"}, onlyCustomers: []string{"alice"}},
		"order_id=order_2&customer_id=alice":   {onlyOrders: []string{"order_2"}, onlyCustomers: []string{"alice"}},
		"order_id[]=order_2":                   {}, // none of ours, and none of ours is ignored
		"order_id%5B%5D=order_2":               {},
		"order_id[0]=order_2":                  {},
		"Order_Id=order_2":                     {},
		"ORDER_ID=order_2":                     {},
		"orderId=order_2":                      {},
		"customer=bob&account=true":            {},
		"%6frder_id=order_1":                   {onlyOrders: []string{"order_1"}},
		"order_id=":                            {refused: true},
		"order_id=&order_id=order_1":           {refused: true},
		"order_id":                             {refused: true},
		"order_id=order_1%00":                  {refused: true},
		"order_id=order_1%0d%0a":               {refused: true},
		"order_id=%ff":                         {refused: true},
		"order_id=%zz":                         {refused: true},
		"order_id=order_1;order_id=order_2":    {refused: true},
		"order_id=" + strings.Repeat("o", 129): {refused: true},
		many(51):                               {refused: true},
		many(1400):                             {refused: true},
	}
	for kind, token := range tokens {
		credential := "Authorization: Bearer " + r.mintWith(func(c *auth.Claims) {
			c.Account, c.Customer, c.Orders = token.account, token.customer, token.orders
		})
		for query, a := range queries {
			a.account, a.customer, a.orders = token.account, token.customer, token.orders
			what := fmt.Sprintf("%s token, %.50q", kind, query)
			var want []string
			for id, o := range events {
				if a.may(o.order, o.customer) {
					want = append(want, id)
				}
			}
			check := func(door string, status int, shown []string) {
				t.Helper()
				if status != a.status() {
					t.Errorf("%s: %s = %d, want %d", what, door, status, a.status())
				}
				if status != http.StatusOK || a.status() != http.StatusOK {
					return
				}
				slices.Sort(shown)
				slices.Sort(want)
				if !slices.Equal(shown, want) {
					t.Errorf("%s: %s shows %q, want %q", what, door, shown, want)
				}
			}
			sse := r.sse("snapshot=0&since="+cursor+"&"+query, credential)
			check("SSE", sse.resp.StatusCode, sse.replayed())
			status, shown := r.dialReplay("snapshot=0&since="+cursor+"&"+query, credential)
			check("WebSocket", status, shown)
			status, shown = r.list(query, credential)
			// A list within a customer or orders is made of the orders' own events.
			for id, o := range events {
				if o.order == "" && a.may("", o.customer) && !slices.Contains(shown, id) {
					shown = append(shown, id)
				}
			}
			check("list", status, shown)
		}
		for id, o := range events {
			if got, _ := r.answer("GET", "/api/v1/events/"+id, "", credential); got.StatusCode != found(token.may(o.order, o.customer)) {
				t.Errorf("%s token: event of %q and %q = %d, want %d", kind, o.order, o.customer, got.StatusCode, found(token.may(o.order, o.customer)))
			}
			if o.order == "" {
				continue
			}
			got, body := r.answer("GET", "/api/v1/orders/"+url.PathEscape(o.order)+"/state", "", credential)
			if got.StatusCode != found(token.may(o.order, o.customer)) || strings.Contains(body, id) != (got.StatusCode == 200) {
				t.Errorf("%s token: state of %q of %q = %d %s, want %d", kind, o.order, o.customer, got.StatusCode, body, found(token.may(o.order, o.customer)))
			}
		}
	}
	// Ten thousand ids do not fit any header; a reading of them is not begun.
	if resp, _ := r.answer("GET", "/api/v1/events?"+many(10_000), "", "X-Api-Key: "+opsKey); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("10,000 ids = %d, want 431", resp.StatusCode)
	}
	for _, door := range []string{ssePath, wsPath, "/api/v1/events", "/api/v1/events/evt_1-1", "/api/v1/orders/order_1/state"} {
		if resp, _ := r.answer("GET", door+"?customer_id=alice", "", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token = %d, want 401", door, resp.StatusCode)
		}
	}
}

func found(yes bool) int {
	if yes {
		return http.StatusOK
	}
	return http.StatusNotFound
}

// replayed returns the ids of the events up to the end of the replay.
func (c *client) replayed() []string {
	c.t.Helper()
	defer c.close()
	if c.conn == nil && c.resp.StatusCode != http.StatusOK {
		return nil
	}
	var shown []string
	for {
		m, ok := c.next()
		switch {
		case !ok:
			c.t.Fatal("stream ended within the replay")
		case m.kind() == "replay_complete":
			return shown
		case m.kind() == "reset":
			c.t.Fatalf("got %s, want a replay", m.Data)
		case m.kind() == "event":
			shown = append(shown, m.text("id"))
		}
	}
}

func (r *rig) dialReplay(query, credential string) (int, []string) {
	r.Helper()
	name, value, _ := strings.Cut(credential, ": ")
	c, err := r.dial(query+"&control=1", http.Header{name: {value}})
	if err != nil {
		if c.resp == nil {
			r.Fatal(err)
		}
		return c.resp.StatusCode, nil
	}
	return http.StatusOK, c.replayed()
}

// list returns the ids of a listing.
func (r *rig) list(query, credential string) (int, []string) {
	r.Helper()
	resp, body := r.answer("GET", "/api/v1/events?limit=100&"+query, "", credential)
	var a struct {
		Data struct{ Data []struct{ ID string } }
	}
	if resp.StatusCode == http.StatusOK {
		r.must(json.Unmarshal([]byte(body), &a))
	}
	var shown []string
	for _, ev := range a.Data.Data {
		shown = append(shown, ev.ID)
	}
	return resp.StatusCode, shown
}
