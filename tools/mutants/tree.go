package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A tree is a copy of the product that mutants are applied to, one at a time.
type tree struct{ dir string }

// copyTree copies what git knows of root or would add, as it is on disk.
func copyTree(ctx context.Context, root string) (*tree, error) {
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	t := &tree{dir}
	for _, name := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		err := copyFile(filepath.Join(root, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, and git not told yet
			t.remove()
			return nil, err
		}
	}
	return t, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read-only
	info, err := in.Stat()
	if err != nil || info.IsDir() { // a tree of its own
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (t *tree) remove() { _ = os.RemoveAll(t.dir) } // it is below the system's own temporary folder

// prove applies m, runs its tests and puts the tree back. The error says why m
// was not caught.
func (t *tree) prove(ctx context.Context, m *mutant, timeout time.Duration) (err error) {
	before := map[string][]byte{}
	for _, name := range m.files {
		if before[name], err = os.ReadFile(filepath.Join(t.dir, name)); err != nil {
			return err
		}
	}
	defer func() {
		for name, text := range before {
			err = errors.Join(err, os.WriteFile(filepath.Join(t.dir, name), text, 0o644))
		}
	}()
	if err := applies(ctx, t.dir, m, false); err != nil {
		return err
	}
	if m.hangs > 0 {
		timeout = m.hangs
	}
	r, err := t.test(ctx, m, timeout)
	m.took = r.took
	switch {
	case err != nil:
		return err
	case r.broken:
		return fmt.Errorf("DOES NOT COMPILE:\n%s", r.tail)
	case r.hung && m.hangs == 0:
		return fmt.Errorf("HANGS, which its header does not say:\n%s", r.tail)
	case r.hung:
		m.caught = m.testNames(r) + " (by its time limit)"
	case r.green && r.ran == 0:
		return fmt.Errorf("NO TEST: nothing matches %s in %s", m.run, m.pkg)
	case r.green:
		return fmt.Errorf("SURVIVES %s", m.run)
	case len(r.failed) == 0:
		m.caught = "leak check of the package"
	default:
		m.caught = strings.Join(r.failed, ", ")
	}
	return nil
}

func (m *mutant) testNames(r result) string {
	if len(r.failed) > 0 {
		return strings.Join(r.failed, ", ")
	}
	return strings.Trim(m.run, "^$")
}

// applies applies the mutant's diff to dir, or only says whether it could.
func applies(ctx context.Context, dir string, m *mutant, only bool) error {
	path, err := filepath.Abs(m.path)
	if err != nil {
		return err
	}
	args := []string{"apply", "--whitespace=nowarn", path}
	if only {
		args = []string{"apply", "--check", path}
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	// A copy must not be taken for a part of a repository around it.
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("DOES NOT APPLY: %s", bytes.TrimSpace(out))
	}
	return nil
}

// A result is what go test said.
type result struct {
	green  bool
	broken bool // it did not compile
	hung   bool
	ran    int           // tests that began
	failed []string      // top-level tests, in the order in which they failed
	took   time.Duration // without compiling
	tail   string        // the end of the output
}

// test runs the tests of m. What they started ends with them.
func (t *tree) test(ctx context.Context, m *mutant, timeout time.Duration) (result, error) {
	args := []string{"test", "-json", "-vet=off", "-count=1", "-run", m.run, "-timeout", timeout.String()}
	args = append(append(args, m.flags...), m.pkg)
	ctx, cancel := context.WithTimeout(ctx, timeout+5*time.Minute) // compiling is not in -timeout
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // a server whose test ran into its limit
	if ctx.Err() != nil {
		return result{}, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, err
	}
	r := read(&out)
	r.green = err == nil
	return r, nil
}

// read reads the events of go test -json.
func read(out *bytes.Buffer) result {
	var r result
	var lines []string
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var ev struct {
			Action, Test, Output string
			Elapsed              float64 // seconds
		}
		if json.Unmarshal(scan.Bytes(), &ev) != nil {
			ev.Action, ev.Output = "output", scan.Text()+"\n"
		}
		top := ev.Test != "" && !strings.Contains(ev.Test, "/")
		switch {
		case ev.Action == "output" || ev.Action == "build-output":
			r.hung = r.hung || strings.HasPrefix(ev.Output, "panic: test timed out")
			r.broken = r.broken || strings.Contains(ev.Output, "[build failed]") || strings.Contains(ev.Output, "[setup failed]")
			lines = append(lines, ev.Output)
		case ev.Action == "build-fail":
			r.broken = true
		case ev.Test == "" && (ev.Action == "fail" || ev.Action == "pass"):
			r.took = time.Duration(ev.Elapsed * float64(time.Second))
		case ev.Action == "run" && top:
			r.ran++
		case ev.Action == "fail" && top && !contains(r.failed, ev.Test):
			r.failed = append(r.failed, ev.Test)
		}
	}
	r.tail = strings.Join(lines[max(0, len(lines)-30):], "")
	return r
}
