package redisbus

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"pepay-gateway/gateway"
)

func FuzzRecord(f *testing.F) {
	f.Add(string(appendEvent(nil, event(1, orderKeys))), "")
	f.Add(string(appendJoin(nil, &gateway.Join{Order: "o", Invoice: "i", Customer: "c", Link: true, Covered: true})), "")
	f.Add("\x01e\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "9:x")
	f.Fuzz(func(t *testing.T, blob, states string) {
		ev, join, err := unpack(blob, states)
		if err != nil {
			return
		}
		if (ev == nil) == (join == nil) {
			t.Fatalf("unpack = %v, %v; want exactly one", ev, join)
		}
		if ev != nil {
			again, _, err := unpack(string(appendEvent(nil, ev)), "")
			if err != nil || !reflect.DeepEqual(again, ev) {
				t.Fatalf("second unpack = %+v, %v; want %+v", again, err, ev)
			}
		}
	})
}

// A frame outlives the batch that it came in; one that held on to a part of the
// batch would keep all of it in memory.
func TestUnpackedEventKeepsNothingOfItsBatch(t *testing.T) {
	blob := string(appendEvent(nil, event(1, gateway.Keys{Order: "o", Invoice: "i", Customer: "c", Wallet: "w", Network: "n"})))
	ev, _, err := unpack(blob, "")
	if err != nil {
		t.Fatal(err)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(blob)))
	for name, s := range map[string]string{
		"id": ev.ID, "type": ev.Type, "order": ev.Keys.Order, "invoice": ev.Keys.Invoice, "customer": ev.Keys.Customer,
		"wallet": ev.Keys.Wallet, "network": ev.Keys.Network, "data": unsafe.String(unsafe.SliceData(ev.Data), len(ev.Data)),
	} {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(s))); at >= begin && at < begin+uintptr(len(blob)) {
			t.Errorf("the %s is a part of the batch, want a copy", name)
		}
	}
}

func FuzzAnnouncement(f *testing.F) {
	blob := string(appendEvent(nil, event(1, orderKeys)))
	f.Add("N")
	f.Add("Ao1\nc1")
	f.Add("B1 00000000002a 7 1\n" + itoa(len(blob)) + ",0:" + blob)
	f.Add("B1 00000000002a 7 65535\n")
	f.Fuzz(func(t *testing.T, payload string) {
		a, err := parseAnnouncement(payload)
		if err != nil {
			return
		}
		for i, e := range a.Entries {
			if e.Seq != a.From+1+uint64(i) {
				t.Fatalf("entry %d has seq %d after %d", i, e.Seq, a.From)
			}
		}
	})
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url    string
		addrs  []string
		master string
		tls    bool
		user   string
		pass   string
		db     int
		bad    string
	}{
		{url: "redis://127.0.0.1:6379/3", addrs: []string{"127.0.0.1:6379"}, db: 3},
		{url: "redis://host:1", addrs: []string{"host:1"}},
		{url: "rediss://u:p%40ss@host:1/0", addrs: []string{"host:1"}, tls: true, user: "u", pass: "p@ss"},
		{url: "redis+sentinel://:pw@a:1,b:2/shop/1", addrs: []string{"a:1", "b:2"}, master: "shop", pass: "pw", db: 1},
		{url: "rediss+cluster://u:p@a:1,b:2", addrs: []string{"a:1", "b:2"}, tls: true, user: "u", pass: "p"},
		{url: "", bad: "empty"},
		{url: "localhost:6379", bad: "no scheme"},
		{url: "http://x", bad: "unknown scheme"},
		{url: "redis://a:1,b:2", bad: "several hosts"},
		{url: "redis://", bad: "no host"},
		{url: "redis+sentinel://a:1", bad: "master"},
		{url: "redis+cluster://a:1/2", bad: "database 0"},
		{url: "redis://a:1/x", bad: "number"},
		{url: "redis://u:secr%et@h:1", bad: "percent-encode"},
		{url: "redis://localhost", addrs: []string{"localhost:6379"}},
		{url: "redis+sentinel://a,[::1]/shop", addrs: []string{"a:26379", "[::1]:26379"}, master: "shop"},
		{url: "redis+cluster://a,b:7000", addrs: []string{"a:6379", "b:7000"}},
		{url: "redis://h:abc/0", bad: "example.com:6379"},
		{url: "redis://h:0", bad: "example.com:6379"},
		{url: "redis+cluster://a,,b", bad: "no host"},
		{url: "rediss://h:1/0?ca-file=/x", bad: "ca_file"},
		{url: "redis://h:1/0?sentinel_password=secret", bad: "for Sentinel"},
		{url: "redis://h:1/0?ca_file=/x", bad: "rediss"},
		{url: "redis://u:secr?et@h:1/0", bad: "percent-encode"},
		{url: "redis://u:secr/et@h:1/0", bad: "percent-encode"},
	} {
		got, err := parseURL(c.url)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) || strings.Contains(err.Error(), "secr") {
				t.Errorf("parseURL(%q) = %v, want an error with %q and no password", c.url, err, c.bad)
			}
			continue
		}
		if err != nil {
			t.Errorf("parseURL(%q) = %v", c.url, err)
			continue
		}
		o := got.options
		if !reflect.DeepEqual(o.Addrs, c.addrs) || o.MasterName != c.master || (o.TLSConfig != nil) != c.tls ||
			o.Username != c.user || o.Password != c.pass || o.DB != c.db {
			t.Errorf("parseURL(%q) = %v %q tls %v %q %q %d", c.url, o.Addrs, o.MasterName, o.TLSConfig != nil, o.Username, o.Password, o.DB)
		}
		if o.MaxRetries != -1 || !o.ContextTimeoutEnabled || !o.DisableIdentity {
			t.Errorf("parseURL(%q): the settings the protocol relies on are off", c.url)
		}
	}
}
