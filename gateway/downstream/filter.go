package downstream

import (
	"net/url"
	"strings"

	"pepay-gateway/gateway"
)

// A query is what a stream's URL asks for, the token apart.
type query struct {
	since    string // a cursor or an event id; "" when absent
	snapshot *bool  // nil: the transport's default
	control  bool
}

// parseQuery reads the parameters of a stream, but for its filter. Unknown ones
// are ignored: Pepay's own clients send more than the gateway uses.
func parseQuery(values url.Values) (q query, p *problem) {
	if q.since, p = single(values, "since"); p != nil {
		return query{}, p
	}
	if values.Has("since") && q.since != resetID && !validSince(q.since) {
		return query{}, badParameter("since")
	}
	if format, p := single(values, "format"); p != nil || values.Has("format") && format != "event_v1" {
		return query{}, badParameter("format")
	}
	snapshot, p := flag(values, "snapshot")
	if p != nil {
		return query{}, p
	}
	control, p := flag(values, "control")
	if p != nil {
		return query{}, p
	}
	q.snapshot, q.control = snapshot, control != nil && *control
	return q, nil
}

// parseFilter reads the filter of a stream or a list. A parameter that is
// repeated is a list of ids; an empty one is malformed, because whoever sent it
// meant to narrow.
func parseFilter(values url.Values, types string) (gateway.Filter, *problem) {
	f := gateway.Filter{
		Orders: values["order_id"], Invoices: values["invoice_id"], Customers: values["customer_id"],
		Wallets: values["wallet_address"], Networks: values["wallet_network"],
	}
	for _, list := range values[types] {
		f.Types = append(f.Types, strings.Split(list, ",")...)
	}
	for _, group := range []struct {
		name string
		ids  []string
		most int
	}{
		{"order_id", f.Orders, gateway.MaxFilterIDs},
		{"invoice_id", f.Invoices, gateway.MaxFilterIDs},
		{"customer_id", f.Customers, gateway.MaxFilterIDs},
		{"wallet_address", f.Wallets, gateway.MaxFilterIDs},
		{"wallet_network", f.Networks, gateway.MaxFilterIDs},
		{types, f.Types, gateway.MaxFilterTypes},
	} {
		if len(group.ids) > group.most || !validIDs(group.ids) {
			return gateway.Filter{}, badParameter(group.name)
		}
	}
	if f.Validate() != nil { // the ids are good, so it is the types
		return gateway.Filter{}, badParameter(types)
	}
	return f, nil
}

func validIDs(ids []string) bool {
	for _, id := range ids {
		if !gateway.ValidID(id) {
			return false
		}
	}
	return true
}

// resetID is the SSE id of a reset: a cursor that never resolves.
const resetID = "cur_reset"

// validSince says whether since could name a place: a cursor, or an event id.
func validSince(since string) bool {
	if strings.HasPrefix(since, "cur_") {
		return gateway.LooksLikeCursor(since)
	}
	return gateway.ValidID(since)
}

// single returns a parameter that may occur once.
func single(values url.Values, name string) (string, *problem) {
	if len(values[name]) > 1 {
		return "", badParameter(name)
	}
	return values.Get(name), nil
}

// flag reads 1 or 0; nil when absent.
func flag(values url.Values, name string) (*bool, *problem) {
	text, p := single(values, name)
	if p != nil || !values.Has(name) {
		return nil, p
	}
	on := text == "1"
	if !on && text != "0" {
		return nil, badParameter(name)
	}
	return &on, nil
}

// narrow limits scope to what f asks for.
func narrow(scope gateway.Scope, f gateway.Filter) (gateway.Scope, *problem) {
	narrowed, err := scope.Narrow(f)
	if err != nil { // f is well-formed, so it asks for more than the scope
		return gateway.Scope{}, errOutOfScope
	}
	return narrowed, nil
}
