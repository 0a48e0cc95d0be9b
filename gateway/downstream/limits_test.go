package downstream

import (
	"fmt"
	"strings"
	"testing"
)

// One byte less than the limit is taken, one more is refused. The limits of a
// WebSocket's messages are in TestWebSocketFrames.
func TestSizesAreHeldToTheByte(t *testing.T) {
	r := newRig(t, nil)
	for n, want := range map[int]int{maxHeaderBytes - 1: 401, maxHeaderBytes: 401, maxHeaderBytes + 1: 431, maxHeaderBytes + 4096: 431} {
		head := len("GET /api/v1/events HTTP/1.1\r\nHost: gateway\r\nX: \r\n\r\n")
		resp, body := r.answer("GET", "/api/v1/events", "", "X: "+strings.Repeat("x", n-head))
		if resp.StatusCode != want {
			t.Errorf("request line and headers of %d bytes = %d %s, want %d", n, resp.StatusCode, body, want)
		}
	}
	for n, want := range map[int]int{maxHeaderBytes: 401, maxHeaderBytes + 1: 431} {
		head := len("GET /api/v1/events? HTTP/1.1\r\nHost: gateway\r\n\r\n")
		if resp, body := r.answer("GET", "/api/v1/events?"+strings.Repeat("x", n-head), ""); resp.StatusCode != want {
			t.Errorf("a request line that makes it %d bytes = %d %s, want %d", n, resp.StatusCode, body, want)
		}
	}
	for n, want := range map[int]int{maxBodyBytes - 1: 200, maxBodyBytes: 200, maxBodyBytes + 1: 413, 1 << 20: 413, 3 << 20: 413} {
		body := `{}` + strings.Repeat(" ", n-2)
		if resp, answer := r.answer("POST", mintPath, body, "X-Api-Key: "+opsKey); resp.StatusCode != want {
			t.Errorf("a body of %d bytes = %d %s, want %d", n, resp.StatusCode, answer, want)
		}
		chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n, body)
		if resp, answer := r.answer("POST", mintPath, "", "X-Api-Key: "+opsKey, "Transfer-Encoding: chunked", "\r\n"+chunks); resp.StatusCode != want {
			t.Errorf("a chunk of %d bytes = %d %s, want %d", n, resp.StatusCode, answer, want)
		}
	}
}
