package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// smuggled is the request that hides in the body of another. Its path is one
// that nobody else asks for, and is answered 404.
const smuggled = "GET /api/v1/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"

// probes are requests whose end two readers could see in different places. The
// classes are those of "HTTP request smuggling": every one of them has opened some
// pair of servers once.
func probes() map[string]string {
	post := func(body string, header ...string) string {
		return "POST /api/v1/ws/token HTTP/1.1\r\nHost: gateway\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n" + body
	}
	const (
		chunked = "Transfer-Encoding: chunked"
		none    = "0\r\n\r\n" // a chunked body without content
	)
	whole := fmt.Sprintf("Content-Length: %d", len(none+smuggled))
	in := func(size int) string { return fmt.Sprintf("%x\r\n", size) }
	return map[string]string{
		"length, then chunked":            post(none+smuggled, whole, chunked),
		"chunked, then length":            post(none+smuggled, chunked, whole),
		"length too short, then chunked":  post(in(len(smuggled))+smuggled+"\r\n"+none, "Content-Length: 4", chunked),
		"chunked twice":                   post(none+smuggled, chunked, chunked, whole),
		"chunked, then identity":          post(none+smuggled, chunked, "Transfer-Encoding: identity", whole),
		"identity, then chunked":          post(none+smuggled, "Transfer-Encoding: identity", chunked, whole),
		"chunked, chunked":                post(none+smuggled, "Transfer-Encoding: chunked, chunked", whole),
		"chunked, identity":               post(none+smuggled, "Transfer-Encoding: chunked, identity", whole),
		"two lengths":                     post(smuggled, "Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(smuggled))),
		"two lengths, the other way":      post(smuggled, fmt.Sprintf("Content-Length: %d", len(smuggled)), "Content-Length: 0"),
		"two lengths in one line":         post(smuggled, fmt.Sprintf("Content-Length: 0, %d", len(smuggled))),
		"length with a plus":              post(smuggled, fmt.Sprintf("Content-Length: +%d", len(smuggled))),
		"length with a minus":             post(smuggled, "Content-Length: -1"),
		"length in hex":                   post(smuggled, "Content-Length: 0x0"),
		"length with a tail":              post(smuggled, "Content-Length: 0 0"),
		"length beyond 64 bits":           post(smuggled, "Content-Length: 18446744073709551616"),
		"empty length":                    post(smuggled, "Content-Length:"),
		"chunked in HTTP/1.0":             strings.Replace(post(none+smuggled, chunked, whole, "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1),
		"chunked in HTTP/1.0, no length":  strings.Replace(post(none+smuggled, chunked, "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1),
		"folded chunked":                  post(none+smuggled, "Transfer-Encoding:\r\n chunked", whole),
		"folded away":                     post(none+smuggled, "X: y\r\n Transfer-Encoding: chunked", whole),
		"folded length":                   post(smuggled, "X: y\r\n Content-Length: "+fmt.Sprint(len(smuggled))),
		"space before the colon, chunked": post(none+smuggled, "Transfer-Encoding : chunked", whole),
		"space before the colon, length":  post(smuggled, fmt.Sprintf("Content-Length : %d", len(smuggled))),
		"tab before the value":            post(none+smuggled, "Transfer-Encoding:\tchunked", whole),
		"vertical tab before the value":   post(none+smuggled, "Transfer-Encoding: \vchunked", whole),
		"xchunked":                        post(none+smuggled, "Transfer-Encoding: xchunked", whole),
		"quoted chunked":                  post(none+smuggled, `Transfer-Encoding: "chunked"`, whole),
		"chunked with a parameter":        post(none+smuggled, "Transfer-Encoding: chunked;q=1", whole),
		"underscore":                      post(none+smuggled, "Transfer_Encoding: chunked", whole),
		"lines that end in LF":            strings.ReplaceAll(post("", chunked, whole), "\r\n", "\n") + none + smuggled,
		"a CR alone in a header":          post(none+smuggled, "X: y\rTransfer-Encoding: chunked", whole),
		"a LF alone in a header":          post(none+smuggled, "X: y\nTransfer-Encoding: chunked", whole),
		"NUL in a header":                 post(none+smuggled, "Transfer-Encoding: chunked\x00", whole),
		"a header line without a colon":   post(none+smuggled, "Transfer-Encoding chunked", whole),
		"LF ends a chunk extension":       post("1;x\ny\r\na\r\n"+none+smuggled, chunked),
		"LF ends a chunk size":            post("1\na\r\n"+none+smuggled, chunked),
		"CR alone ends a chunk size":      post("1\ra\r\n"+none+smuggled, chunked),
		"LF ends a chunk":                 post("1\r\na\n"+none+smuggled, chunked),
		"no line break ends a chunk":      post("1\r\naXX"+none+smuggled, chunked),
		"chunk size beyond 64 bits":       post("10000000000000001\r\na\r\n"+none+smuggled, chunked),
		"chunk size with a sign":          post("+1\r\na\r\n"+none+smuggled, chunked),
		"negative chunk size":             post("-1\r\na\r\n"+none+smuggled, chunked),
		"chunk size with 0x":              post("0x1\r\na\r\n"+none+smuggled, chunked),
		"chunk size with a space before":  post(" 1\r\na\r\n"+none+smuggled, chunked),
		"empty chunk size":                post("\r\n"+none+smuggled, chunked),
		"LF ends the last chunk":          post("0\n\n"+smuggled, chunked),
		"a trailer that is a length":      post("0\r\nContent-Length: "+fmt.Sprint(len(smuggled))+"\r\n\r\n"+smuggled, chunked),
		"two hosts":                       post(none+smuggled, "Host: other", whole),
		"a space in the method":           " " + post(none+smuggled, whole),
		"a GET with a body":               strings.Replace(post(smuggled, fmt.Sprintf("Content-Length: %d", len(smuggled))), "POST", "GET", 1),
	}
}

// answers sends raw bytes and returns the status of every answer, until the
// connection ends. It says that it will send no more, so a good server ends it.
func answers(t testing.TB, url, raw string) []int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite() // reset already is fine
	var statuses []int
	r := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusContinue {
			statuses = append(statuses, resp.StatusCode)
		}
	}
}

func TestNoRequestIsSmuggled(t *testing.T) {
	t.Parallel()
	redis, p := startRedis(t), startPepay(t)
	g := startGateway(t, "node-a", redis, p)
	t.Run("alone", func(t *testing.T) { probe(t, g, nil) })
	t.Run("behind nginx", func(t *testing.T) {
		// It would drop the request of a client that has said that it sends no more.
		probe(t, g, startNginx(t, []string{g.url}, "proxy_ignore_client_abort on; access_log /dev/stdout;"))
	})
}

// probe sends every probe to g, through the proxy if there is one. However the
// proxy reads a probe, lenient as it may be, g must see the requests that it sees.
func probe(t *testing.T, g *gatewayProcess, proxy *nginxProxy) {
	url := g.url
	if proxy != nil {
		url = proxy.url
	}
	// served and passed count the hidden requests in the logs, which come late.
	served := func() int { return strings.Count(g.output(), `"status":404`) }
	passed := func() int {
		if proxy == nil {
			return 0
		}
		return strings.Count(proxy.output(), "GET /api/v1/smuggled")
	}
	sent, earlier := 0, strings.Count(g.output(), `"status":426`)
	others := func(after string) {
		t.Helper()
		for range 2 { // over the same connections to the gateway
			if status := getStatus(url + "/ws/commerce/events"); status != http.StatusUpgradeRequired {
				t.Errorf("%s: the next client is answered %d, want 426", after, status)
			}
			sent++
		}
		eventually(t, 10*time.Second, "the next clients are in the logs", func() bool {
			return strings.Count(g.output(), `"status":426`) >= earlier+sent &&
				(proxy == nil || strings.Count(proxy.output(), "GET /ws/commerce/events") >= sent)
		})
	}
	if got := answers(t, url, smuggled+smuggled); len(got) != 2 {
		t.Fatalf("%v to two requests, want two answers, or this test would see nothing", got)
	}
	others("two requests")
	for name, raw := range probes() {
		servedBefore, passedBefore := served(), passed()
		got := answers(t, url, raw)
		others(name)
		known := passed() - passedBefore
		if n := served() - servedBefore; n != known {
			t.Errorf("%s: the gateway served %d hidden requests, want %d", name, n, known)
		}
		if len(got) > 1+known {
			t.Errorf("%s: answers %v, want at most %d", name, got, 1+known)
		}
	}
}
