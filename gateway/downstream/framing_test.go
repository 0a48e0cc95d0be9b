package downstream

import "testing"

func TestAmbiguousRequestsAreRefused(t *testing.T) {
	r := newRig(t, nil)
	const body, key = "2\r\n{}\r\n0\r\n\r\n", "X-Api-Key: " + opsKey
	for _, tc := range []struct {
		name   string
		body   string // behind what r writes for it
		header []string
		want   int
	}{
		{"a length", "{}", nil, 200},
		{"chunks", "", []string{"Transfer-Encoding: chunked", "\r\n" + body}, 200},
		{"a length, then chunks", "", []string{"Content-Length: 12", "Transfer-Encoding: chunked", "\r\n" + body}, 400},
		{"chunks, then a length", "", []string{"Transfer-Encoding: chunked", "content-length: 12", "\r\n" + body}, 400},
		{"a folded length", "", []string{"X: y", " Content-Length: 2"}, 400},
		{"a length folded with a tab", "", []string{"X: y", "\tContent-Length: 2"}, 400},
		{"a folded value", "", []string{"X: y", "  z"}, 400},
	} {
		resp, _ := r.answer("POST", mintPath, tc.body, append([]string{key}, tc.header...)...)
		if resp.StatusCode != tc.want || resp.Close != (tc.want == 400) {
			t.Errorf("%s: status = %d, closed %v, want %d, closed if refused", tc.name, resp.StatusCode, resp.Close, tc.want)
		}
	}
}
