package bench

import (
	"bufio"
	"strings"
	"testing"
)

func TestRepliesOfRedisAreRead(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
	}{
		{":123\r\n", "123", true},
		{"$5\r\nhello\r\n", "hello", true},
		{"$0\r\n\r\n", "", true},
		{"$-1\r\n", "", true},
		{"-ERR unknown command\r\n", "", false},
		{"$5\r\nhe", "", false},
		{"$99999999999\r\n", "", false},
		{"$x\r\n", "", false},
		{"*1\r\n", "", false},
		{"\r\n", "", false},
		{"", "", false},
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(tt.in)))
		if err == nil != tt.ok || tt.ok && got != tt.want {
			t.Errorf("readReply(%q) = %q, %v, want %q, %t", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func TestInfoHasNamedNumbers(t *testing.T) {
	const info = "# Stats\r\ntotal_net_input_bytes:42\r\ntotal_net_input_bytes_x:7\r\n"
	if got, err := infoField(info, "total_net_input_bytes"); got != 42 || err != nil {
		t.Errorf("infoField = %d, %v, want 42", got, err)
	}
	if _, err := infoField(info, "input_bytes"); err == nil {
		t.Error("a field that is not there is found")
	}
}

func FuzzReply(f *testing.F) {
	f.Add("$5\r\nhello\r\n")
	f.Add(":1\n")
	f.Fuzz(func(t *testing.T, in string) {
		if got, err := readReply(bufio.NewReader(strings.NewReader(in))); err == nil && len(got) > len(in) {
			t.Errorf("readReply(%q) = %q, longer than what came", in, got)
		}
	})
}
