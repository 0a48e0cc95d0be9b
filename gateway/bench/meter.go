package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of processor time in /proc, on every Linux there is.
const clockTick = 10 * time.Millisecond

// A usage is what a server has used so far.
type usage struct {
	CPU    time.Duration
	Memory int64 // bytes now: PSS, or RSS where only metrics tell
}

// A meter reads what a server uses.
type meter interface {
	read(ctx context.Context) (usage, error)
}

// pids are the processes of one server on this machine.
type pids []int

// read implements meter from /proc.
func (p pids) read(context.Context) (usage, error) {
	var all usage
	for _, pid := range p {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return usage{}, fmt.Errorf("bench: processor time: %w", err)
		}
		cpu, err := parseStat(stat)
		if err != nil {
			return usage{}, err
		}
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return usage{}, fmt.Errorf("bench: memory: %w", err)
		}
		memory, err := parseRollup(rollup)
		if err != nil {
			return usage{}, err
		}
		all.CPU += cpu
		all.Memory += memory
	}
	return all, nil
}

// parseStat returns utime + stime. The second field, the program's name, may
// contain anything.
func parseStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("bench: /proc/PID/stat has too few fields")
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

func parseRollup(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "Pss:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("bench: no Pss in /proc/PID/smaps_rollup")
}

// metricsURL is the admin listener's /metrics of a gateway that runs elsewhere.
type metricsURL string

// read implements meter from what the process says of itself.
func (m metricsURL) read(ctx context.Context) (usage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(m), nil)
	if err != nil {
		return usage{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return usage{}, fmt.Errorf("bench: metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read as far as needed
	if resp.StatusCode != http.StatusOK {
		return usage{}, fmt.Errorf("bench: metrics: %s", resp.Status)
	}
	return parseMetrics(resp.Body)
}

func parseMetrics(r io.Reader) (usage, error) {
	var u usage
	for s := bufio.NewScanner(r); s.Scan(); {
		name, text, _ := strings.Cut(s.Text(), " ")
		v, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil:
		case name == "process_cpu_seconds_total":
			u.CPU = time.Duration(v * float64(time.Second))
		case name == "process_resident_memory_bytes":
			u.Memory = int64(v)
		}
	}
	if u.Memory == 0 {
		return u, errors.New("bench: metrics: no process_resident_memory_bytes")
	}
	return u, nil
}

// sendMemory returns what the kernel holds for sending on the connections of the
// server at addr, by peer. Without ss, or on another host, there is nothing.
func sendMemory(ctx context.Context, addr string) map[string]int64 {
	_, port, _ := strings.Cut(addr, ":")
	out, err := exec.CommandContext(ctx, "ss", "-tmnHO", "sport", "=", ":"+port).Output()
	if err != nil {
		return nil
	}
	return parseSS(out)
}

// parseSS returns the memory of sent data by peer address.
func parseSS(out []byte) map[string]int64 {
	by := map[string]int64{}
	for line := range bytes.Lines(out) {
		f := strings.Fields(string(line))
		_, mem, ok := strings.Cut(string(line), "skmem:(")
		if len(f) < 5 || !ok {
			continue
		}
		for part := range strings.SplitSeq(mem, ",") {
			// w is what the kernel has allocated for what is to be sent.
			if v, ok := strings.CutPrefix(part, "w"); ok {
				if n, err := strconv.ParseInt(v, 10, 64); err == nil {
					by[f[4]] = n
				}
			}
		}
	}
	return by
}
