package devnet

import (
	"slices"
	"strings"
)

// A filter selects events. Its parts combine with AND; an empty part selects
// all, and an event that lacks a filtered key does not match.
type filter struct {
	types typeFilter
	keys  keys
}

func (f filter) match(ev *event) bool {
	return f.types.match(ev.typ) &&
		matchKey(f.keys.order, ev.keys.order) &&
		matchKey(f.keys.invoice, ev.keys.invoice) &&
		matchKey(f.keys.customer, ev.keys.customer) &&
		matchKey(f.keys.network, ev.keys.network) &&
		(f.keys.wallet == "" || sameWallet(f.keys.wallet, ev.keys.wallet))
}

func matchKey(want, got string) bool { return want == "" || want == got }

// sameWallet compares EVM addresses without case, all others exactly.
func sameWallet(a, b string) bool {
	if strings.HasPrefix(a, "0x") || strings.HasPrefix(a, "0X") {
		return strings.EqualFold(a, b)
	}
	return a == b
}

// A typeFilter holds exact types and prefixes, the latter with their dot, so
// that invoice.* does not select invoice_payment events.
type typeFilter []string

func (t typeFilter) match(typ string) bool {
	if len(t) == 0 {
		return true
	}
	return slices.ContainsFunc(t, func(want string) bool {
		return want == typ || strings.HasSuffix(want, ".") && strings.HasPrefix(typ, want)
	})
}

// parseTypes reads a comma-separated list of known types, whose entries may
// end in ".*".
func parseTypes(s string) (typeFilter, error) {
	if s == "" {
		return nil, nil
	}
	var t typeFilter
	for item := range strings.SplitSeq(s, ",") {
		want := strings.TrimSuffix(strings.TrimSpace(item), "*")
		known := slices.ContainsFunc(allTypes[:], func(typ string) bool {
			return typeFilter{want}.match(typ)
		})
		if want == "" || !known || strings.HasSuffix(item, "*") != strings.HasSuffix(want, ".") {
			return nil, invalid("unknown event type in filter")
		}
		t = append(t, want)
	}
	return t, nil
}
