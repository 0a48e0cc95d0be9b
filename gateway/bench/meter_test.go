package bench

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProcessorTimeIsReadWhateverTheProgramIsCalled(t *testing.T) {
	got, err := parseStat([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 100 1 1"))
	if want := 3 * time.Second; err != nil || got != want {
		t.Errorf("parseStat = %v, %v, want %v", got, err, want)
	}
	if _, err := parseStat([]byte("42 (a) S")); err == nil {
		t.Error("a short line is taken")
	}
}

func TestMemoryIsTheProportionalShare(t *testing.T) {
	got, err := parseRollup([]byte("55d-7ff ---p 0 0:0 0 [rollup]\nRss:   900 kB\nPss:   700 kB\nPss_Anon:  1 kB\n"))
	if want := int64(700 << 10); err != nil || got != want {
		t.Errorf("parseRollup = %d, %v, want %d", got, err, want)
	}
	if _, err := parseRollup([]byte("Rss: 900 kB\n")); err == nil {
		t.Error("nothing is taken for memory")
	}
}

func TestThisProcessUsesSomething(t *testing.T) {
	u, err := pids{os.Getpid()}.read(context.Background())
	if err != nil || u.Memory < 1<<20 {
		t.Errorf("read = %+v, %v, want more than a MiB", u, err)
	}
}

func TestMetricsTellWhatAProcessUses(t *testing.T) {
	const text = "# HELP x y\nprocess_cpu_seconds_total 1.5\nprocess_resident_memory_bytes 2.097152e+06\n"
	got, err := parseMetrics(strings.NewReader(text))
	if want := (usage{1500 * time.Millisecond, 2 << 20}); err != nil || got != want {
		t.Errorf("parseMetrics = %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseMetrics(strings.NewReader("up 1\n")); err == nil {
		t.Error("nothing is taken for memory")
	}
}

func TestSendMemoryIsFoundByPeer(t *testing.T) {
	got := parseSS([]byte("ESTAB 0 4608 127.0.0.1:80 127.0.0.3:4711 skmem:(r0,rb131072,t0,tb87040,f1792,w91392,o0,bl0,d0)\nESTAB 0 0\n"))
	if len(got) != 1 || got["127.0.0.3:4711"] != 91392 {
		t.Errorf("parseSS = %v, want 91392 for 127.0.0.3:4711", got)
	}
}
