package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A mutant is one patch: a header of "key: value" lines, then a unified diff.
type mutant struct {
	name    string // of the file, without its ending
	path    string
	source  string        // which list of rules the rule is from
	rule    string        // what the product promises
	removes string        // how the mutant breaks it
	pkg     string        // of the tests
	run     string        // which tests must turn red, as for go test -run
	flags   []string      // more flags for go test, such as -race
	hangs   time.Duration // if not 0: the tests' time limit, which may be what catches the mutant
	files   []string      // what the diff changes

	// What became of it.
	caught string
	took   time.Duration
	err    error
}

// sources are the lists of rules, in the order of the table.
var sources = []string{"evidence", "invariant", "wire", "log"}

// load reads the mutants that o asks for, sorted by name.
func load(o options) ([]*mutant, error) {
	dir := filepath.Join(o.root, o.patches)
	var paths []string
	for _, name := range strings.Split(o.name, ",") {
		found, err := filepath.Glob(filepath.Join(dir, name+"*.patch"))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no mutant %s*.patch in %s", name, dir)
		}
		paths = append(paths, found...)
	}
	var all []*mutant
	var errs []error
	for _, path := range paths {
		m, err := parse(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(path), err))
			continue
		}
		all = append(all, m)
	}
	slices.SortStableFunc(all, func(a, b *mutant) int {
		if d := slices.Index(sources, a.source) - slices.Index(sources, b.source); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return all, errors.Join(errs...)
}

var changed = regexp.MustCompile(`(?m)^\+\+\+ b/(.+)$`)

func parse(path string) (*mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	head, diff, ok := bytes.Cut(text, []byte("\n--- "))
	if !ok {
		return nil, errors.New("no diff")
	}
	m := &mutant{name: strings.TrimSuffix(filepath.Base(path), ".patch"), path: path}
	for _, line := range strings.Split(strings.TrimSpace(string(head)), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "source":
			m.source = value
		case "rule":
			m.rule = value
		case "removes":
			m.removes = value
		case "package":
			m.pkg = value
		case "run":
			m.run = value
		case "flags":
			m.flags = strings.Fields(value)
		case "hangs":
			if m.hangs, err = time.ParseDuration(value); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("header line %q", line)
		}
	}
	if !slices.Contains(sources, m.source) {
		return nil, fmt.Errorf("source %q, want one of %q", m.source, sources)
	}
	if m.rule == "" || m.removes == "" || m.pkg == "" || m.run == "" {
		return nil, errors.New("the header needs rule, removes, package and run")
	}
	for _, f := range changed.FindAllSubmatch(diff, -1) {
		name := string(f[1])
		if !filepath.IsLocal(name) || strings.HasSuffix(name, "_test.go") {
			return nil, fmt.Errorf("changes %q, which is not the product", name)
		}
		m.files = append(m.files, name)
	}
	return m, nil
}
