package downstream

import (
	"bytes"
	"strconv"
	"time"
)

// appendBlock appends one Server-Sent Event. Data is split at every line break
// that browsers know, so that no byte of it can become a field of its own: an
// "id:" in an event must not move anybody's cursor. id and event may be empty;
// an id of other than our own alphabet is left out.
//
// The id comes last: @microsoft/fetch-event-source, unlike the standard, moves
// its cursor with the line and not with the block, so that a connection cut
// within the data would cost it the event.
func appendBlock(dst []byte, id, event string, data []byte) []byte {
	if event != "" {
		dst = append(append(append(dst, "event: "...), event...), '\n')
	}
	for {
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			break
		}
		dst = appendData(dst, data[:i])
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
	dst = appendData(dst, data)
	if id != "" && wireID(id) {
		dst = append(append(append(dst, "id: "...), id...), '\n')
	}
	return append(dst, '\n')
}

func appendData(dst, line []byte) []byte {
	return append(append(append(dst, "data: "...), line...), '\n')
}

// appendRetry appends how long the browser waits before it reconnects.
func appendRetry(dst []byte, d time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, d.Milliseconds(), 10)
	return append(dst, "\n\n"...)
}

// wireID says whether id is of the alphabet of our cursors and end marks.
func wireID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return id != ""
}
