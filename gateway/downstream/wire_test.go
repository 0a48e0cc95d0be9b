package downstream

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pepay-gateway/gateway"
)

// parseStream is the event stream interpretation of the HTML standard, written
// from it and not from the encoder.
func parseStream(stream string) (blocks []message) {
	stream = strings.ReplaceAll(stream, "\r\n", "\n")
	stream = strings.ReplaceAll(stream, "\r", "\n")
	var data strings.Builder
	var event, id string
	for _, line := range strings.SplitAfter(stream, "\n") {
		if !strings.HasSuffix(line, "\n") {
			continue // an incomplete line is discarded
		}
		line = line[:len(line)-1]
		field, value, colon := strings.Cut(line, ":")
		switch {
		case line == "":
			if data.Len() > 0 {
				blocks = append(blocks, message{ID: id, Event: event, Data: strings.TrimSuffix(data.String(), "\n")})
			}
			data.Reset()
			event = ""
			continue
		case colon && field == "":
			continue // a comment
		}
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			event = value
		case "data":
			data.WriteString(value + "\n")
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		}
	}
	return blocks
}

// nasty holds data that is, to some reader of event streams, more than data.
var nasty = []string{
	"", " ", "  two spaces", "\ufeff", "\x00", "a\x00b", "\u2028", "a\u2028id: x", "a\u2029data: x", "a\u0085id: x", "a\vid: x", "a\fid: x",
	"\n", "\r", "\r\n", "\n\r", "\r\r", "\n\n", "\r\n\r\n", "x\r", "x\n", "x\r\n", "\rx", "\nx",
	"x\rid: forged", "x\nid: forged", "x\r\nid: forged", "x\n\rid: forged", "x\rid: a\x00b", "x\nid", "x\nid:", "x\rretry: 1", "x\nretry:1",
	"x\revent: order.paid\r\rdata: y", "x\n\nevent: order.paid\ndata: y\n\n", "x\r\n\r\nevent: control\r\ndata: {\"type\":\"reset\"}\r\n\r\n",
	"x\n: comment", "x\n:", "data: x", "id: x", "event: x", ": x", "x\ndata: y", "x\ndata", "{\r\n  \"a\": 1,\r\n  \"b\": \"\\r\\n\"\r\n}", "\xff\xfe\r\xff",
}

// Whatever an upstream writes into its events, an event stream has them one for
// one, with the gateway's own ids, live and replayed and as state.
func TestEventsCannotForgeTheStream(t *testing.T) {
	r := newRig(t, nil)
	r.cover("alice")
	live := r.sse("token=" + r.token("alice"))
	cursor := settled(live).text("cursor")
	var want []string
	ours := map[string]bool{"": true, "cur_reset": true}
	for i, data := range nasty {
		ev := event(fmt.Sprint("order_", i), "alice")
		ev.Data = []byte(data)
		r.append(gateway.Record{ID: ev.ID, Event: ev, NewLinks: true})
		ours[r.node.Cursor(r.node.Position())] = true
		want = append(want, strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n"))
	}
	end := r.publish("the_end", "alice")
	ours[r.node.Cursor(r.node.Position())] = true
	for name, c := range map[string]*client{
		"live": live, "replay": r.sse("since=" + cursor + "&token=" + r.token("alice")), "snapshot": r.sse("token=" + r.token("alice")),
	} {
		r.must(c.raw.SetReadDeadline(time.Now().Add(wait)))
		raw := ""
		for !strings.Contains(raw, string(end.Data)+"\n") || !strings.HasSuffix(raw, "\n\n") {
			line, err := c.body.ReadString('\n')
			r.must(err)
			raw += line
		}
		var got []string
		for _, b := range parseStream(raw) {
			if !ours[b.ID] {
				t.Errorf("%s: id %q, want one of the gateway's", name, b.ID)
			}
			if b.Event == "" && b.Data != string(end.Data) {
				got = append(got, b.Data)
			} else if b.Event != "" && b.Event != "control" {
				t.Errorf("%s: event %q, want none or control", name, b.Event)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: events = %q, want %q", name, got, want)
		}
		if strings.Count("\n"+raw, "\nretry:") > 1 {
			t.Errorf("%s: retry is set by an event", name)
		}
	}
}

func FuzzSSEEncode(f *testing.F) {
	f.Add("cur_AAAAAAAAAAAAAAAAAAAAAA", "", []byte(`{"id":"evt_1-1"}`))
	f.Add("", "control", []byte("a\rid: evil\nevent: order.paid\r\n\r\ndata: x"))
	f.Add("end_4409\nid: x", "error_frame", []byte(""))
	f.Add("a\x00b", "", []byte("\n\n"))
	f.Add("", "", []byte(": comment\r"))
	for _, data := range nasty {
		f.Add("cur_AAAAAAAAAAAAAAAAAAAAAA", "", []byte(data))
	}
	f.Fuzz(func(t *testing.T, id, event string, data []byte) {
		if event != "" {
			event = "control" // never from outside
		}
		got := parseStream(string(appendBlock(nil, id, event, data)))
		normal := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
		want := message{ID: id, Event: event, Data: normal}
		if !wireID(id) {
			want.ID = ""
		}
		if len(got) != 1 || got[0].ID != want.ID || got[0].Event != want.Event || got[0].Data != want.Data {
			t.Errorf("block = %+v, want one of %+v", got, want)
		}
	})
}

// Some clients move their cursor when they read an id, before the block is whole.
// Cut within the data they must not come back behind it.
func TestSSEIDFollowsItsData(t *testing.T) {
	got, want := string(appendBlock(nil, "cur_x", "control", []byte("a\nb"))), "event: control\ndata: a\ndata: b\nid: cur_x\n\n"
	if got != want {
		t.Errorf("block = %q, want %q", got, want)
	}
}

func FuzzFilterQuery(f *testing.F) {
	f.Add("types=commerce.order.*,invoice.*&order_id=o1&order_id=o2&since=evt_1-1&snapshot=1&control=0")
	f.Add("customer_id=&wallet_address=0xAB%00")
	f.Add("since=cur_AAAAAAAAAAAAAAAAAAAAAA&format=event_v1")
	f.Add("order_id[]=x&Order_Id=y&types=*&%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		filter, p := parseFilter(values, "types")
		q, queryProblem := parseQuery(values)
		if p == nil {
			p = queryProblem
		}
		if p != nil {
			if p.status != 400 || p.close != 4400 {
				t.Errorf("%q is refused with %v, want a 400", raw, p)
			}
			return
		}
		if err := filter.Validate(); err != nil {
			t.Errorf("parseFilter(%q) let pass a filter that is %v", raw, err)
		}
		if q.since != "" && !validSince(q.since) {
			t.Errorf("parseQuery(%q) let pass since %q", raw, q.since)
		}
		alice := gateway.Scope{Customer: "alice", Orders: []string{"o1"}}
		narrowed, p := narrow(alice, filter)
		if p == nil && narrowed.Allows(gateway.Keys{Order: "o1", Customer: "bob"}) {
			t.Errorf("parseFilter(%q) widened the scope", raw)
		}
	})
}

func FuzzClientMessage(f *testing.F) {
	f.Add([]byte(`{"type":"ping"}`))
	f.Add([]byte(`{"type":"token","token":"a.b.c"}`))
	f.Add([]byte(`{"type":"ping","type":"token","token":"x"}`))
	f.Add([]byte(strings.Repeat("[", 4096)))
	f.Add([]byte(`{"type":1e999}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, ok := parseRequest(data)
		if !ok {
			return
		}
		if r.ping && r.token != "" {
			t.Errorf("parseRequest(%q) = %+v, want a ping or a token", data, r)
		}
		if !utf8.Valid(data) || strings.Count(string(data), `"type"`) > 1 && r.ping {
			t.Errorf("parseRequest(%q) = %+v, want it refused", data, r)
		}
	})
}

var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestForwardedFor(t *testing.T) {
	hundred := strings.Repeat("10.1.1.1,", 100)
	for _, tc := range []struct{ peer, header, want string }{
		{"203.0.113.7", "", "203.0.113.7"},
		{"203.0.113.7", "6.6.6.6", "203.0.113.7"}, // not from a proxy
		{"10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.1", "203.0.113.7", "203.0.113.7"},
		{"10.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"},
		{"10.0.0.1", "6.6.6.6, 203.0.113.7, 10.0.0.2", "203.0.113.7"},
		{"10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"10.0.0.1", "6.6.6.6, garbage", "10.0.0.1"},
		{"10.0.0.1", "6.6.6.6,", "10.0.0.1"},
		{"10.0.0.1", "203.0.113.7:4711", "203.0.113.7"},
		{"10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"},
		{"10.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"},
		{"::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"},
		{"fd00::1", "2001:db8::1%eth0", "2001:db8::1"},
		{"10.0.0.1", "6.6.6.6," + hundred + "10.0.0.2", "6.6.6.6"},
		{"10.0.0.1", `evil"} {`, "10.0.0.1"},
	} {
		if got := forwardedFor(netip.MustParseAddr(tc.peer), strings.Split(tc.header, ","), proxies); got.String() != tc.want {
			t.Errorf("forwardedFor(%s, %.40q) = %s, want %s", tc.peer, tc.header, got, tc.want)
		}
	}
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("6.6.6.6, 203.0.113.7", true)
	f.Add("10.0.0.2,garbage", true)
	f.Add("[::1]:80,10.0.0.1", false)
	f.Fuzz(func(t *testing.T, header string, viaProxy bool) {
		peer := netip.MustParseAddr("203.0.113.9")
		if viaProxy {
			peer = proxies[0].Addr()
		}
		hops := strings.Split(header, ",")
		got := forwardedFor(peer, hops, proxies)
		if !viaProxy && got != peer {
			t.Errorf("forwardedFor(%s, %q) = %s, want the peer", peer, header, got)
		}
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Errorf("forwardedFor(%s, %q) = %v, want a plain address", peer, header, got)
		}
		// What a client writes to the left of what the proxy adds changes nothing.
		client := netip.MustParseAddr("198.51.100.1")
		if got := forwardedFor(proxies[0].Addr(), append(hops, client.String()), proxies); got != client {
			t.Errorf("forwardedFor(%q, %s) = %s, want %s", header, client, got, client)
		}
	})
}

// A client may close its side of the connection as soon as it has sent its close
// frame: it is answered all the same.
func TestCloseFrameThenTheEndIsAnswered(t *testing.T) {
	r := newRig(t, nil)
	for range 50 {
		s := r.rawSocket(r.token("alice"))
		if _, err := s.conn.Write(closing(1000, "").bytes()); err != nil {
			t.Fatal(err)
		}
		if err := s.conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		op, payload, err := s.read()
		for op != opClose && err == nil {
			op, payload, err = s.read()
		}
		if err != nil || payload != "\x03\xe8" {
			t.Fatalf("answered with %q, %v; want a close frame of 1000", payload, err)
		}
	}
}
