package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	startWait = 20 * time.Second // for a server to be ready
	stopWait  = time.Second      // for it to end when asked to: nothing in it is kept
)

// A process is one program that a run has started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // the file with what it printed
	done chan struct{} // closed when it has ended
	err  error         // once done
}

// start starts a program, whose output goes to a file in dir.
func start(dir, name, program string, args, env []string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = out.Close() }() // the child has it
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("bench: start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process, by force if it does not end when asked to.
func (p *process) stop() { p.end(stopWait) }

// end is stop with so much patience.
func (p *process) end(patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already is fine
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// ready waits until ok, or until the process has ended.
func (p *process) ready(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startWait, errors.New("not ready in time"))
	defer cancel()
	for !ok() {
		select {
		case <-p.done:
			return fmt.Errorf("bench: %s ended: %w%s", p.name, p.err, p.said())
		default:
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("bench: %s: %w%s", p.name, err, p.said())
		}
	}
	return nil
}

// said returns the end of what the process printed.
func (p *process) said() string {
	b, _ := os.ReadFile(p.log) // nothing is fine
	if len(b) == 0 {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-2000):])
}

// freeAddr returns a loopback address that nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = ln.Close() }() // for whoever is to listen there
	return ln.Addr().String(), nil
}

// answers says whether GET of url is answered 200.
func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // nothing in it is of interest
	return resp.StatusCode == http.StatusOK
}
