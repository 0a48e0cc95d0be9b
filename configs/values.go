package configs

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// text assigns a value that is not from the file.
func (l *loader) text(f field, where, value string) {
	n := node{kind: scalar, text: value}
	switch f.value.(type) {
	case *[]string, *[]netip.Prefix:
		n = node{kind: list}
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				n.items = append(n.items, node{kind: scalar, text: part})
			}
		}
	case *[]APIKey, *[]VerifyKey:
		var err error
		if n, _, err = parseYAML([]byte(value)); err != nil {
			l.from[f.key] = where
			l.bad(f.key, "%v; write a list such as [{name: shop, …}]", err)
			return
		}
	}
	l.assign(f, where, n, func(int) string { return where })
}

// assign gives a field the value of a node, if it is of the right form.
func (l *loader) assign(f field, where string, n node, at func(line int) string) {
	l.from[f.key] = where
	delete(l.failed, f.key) // a stronger source replaces a bad value, which stays reported
	if n.kind == unsupported {
		l.bad(f.key, "anchors, aliases and tags are not supported; write the value itself")
		return
	}
	switch p := f.value.(type) {
	case *[]string:
		*p = l.texts(f.key, n, at)
	case *[]netip.Prefix:
		*p = l.prefixes(f.key, n, at)
	case *[]APIKey:
		*p = make([]APIKey, l.items(f.key, n, at))
		for i := range *p {
			prefix := element(f.key, i) + "."
			l.walk(prefix, (*p)[i].fields(prefix), n.items[i], at)
		}
	case *[]VerifyKey:
		*p = make([]VerifyKey, l.items(f.key, n, at))
		for i := range *p {
			prefix := element(f.key, i) + "."
			l.walk(prefix, (*p)[i].fields(prefix), n.items[i], at)
		}
	default:
		if n.kind != scalar {
			l.bad(f.key, "must be one value, not a list or a section")
			return
		}
		l.scalar(f, n.text)
	}
}

func (l *loader) scalar(f field, text string) {
	var err error
	switch p := f.value.(type) {
	case *string:
		*p = text
	case *Secret:
		*p = Secret(text)
	case *RedisURL:
		*p = RedisURL(text)
	case *bool:
		if text != "true" && text != "false" {
			l.bad(f.key, "%s is neither true nor false", quote(text))
			return
		}
		*p = text == "true"
	case *int:
		if *p, err = strconv.Atoi(text); err != nil {
			l.bad(f.key, "%s is not a whole number", quote(text))
		}
	case *time.Duration:
		if *p, err = time.ParseDuration(text); err != nil {
			l.bad(f.key, "%s is not a duration; write a number and its unit, such as 90s, 5m or 24h", quote(text))
		}
	}
}

func (l *loader) texts(key string, n node, at func(line int) string) []string {
	if n.kind != list {
		l.bad(key, "must be a list, such as [a, b]")
		return nil
	}
	if len(n.items) > maxListItems {
		l.bad(key, "has more than %d entries", maxListItems)
		return nil
	}
	texts := make([]string, 0, len(n.items))
	for i, item := range n.items {
		entry := element(key, i)
		l.from[entry] = at(item.line)
		delete(l.failed, entry)
		if item.kind != scalar || item.text == "" {
			l.bad(entry, "must be one value")
			continue
		}
		texts = append(texts, item.text)
	}
	if len(texts) < len(n.items) {
		l.failed[key] = true
		return nil // the indexes would not fit
	}
	return texts
}

func (l *loader) prefixes(key string, n node, at func(line int) string) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, text := range l.texts(key, n, at) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil || addr.Zone() != "" { // the zero prefix keeps its place
				l.bad(element(key, i), "%s is not an address range; write for example 10.0.0.0/8", quote(text))
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes
}

// items returns how many mappings a list consists of, or 0 and reports.
func (l *loader) items(key string, n node, at func(line int) string) int {
	if n.kind != list || len(n.items) > maxListItems {
		l.bad(key, "must be a list of at most %d entries, each with its keys", maxListItems)
		return 0
	}
	for i, item := range n.items {
		if item.kind != mapping {
			l.from[key] = at(item.line)
			l.bad(key, "entry %d must consist of keys and values, such as name: shop", i+1)
			return 0
		}
		l.from[element(key, i)] = at(item.line)
	}
	return len(n.items)
}

// element is the key of one entry of a list.
func element(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
