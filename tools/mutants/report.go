package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// seconds is a time as the table shows it: coarse, so that it seldom changes.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%d s", max(1, int(d.Round(time.Second).Seconds())))
}

func printTable(out io.Writer, mutants []*mutant) {
	fmt.Fprintf(out, "\n%-60s  %-26s  %-60s  %s\n", "rule", "mutant", "caught by", "seconds")
	var all time.Duration
	for _, m := range mutants {
		caught := m.caught
		if m.err != nil {
			caught, _, _ = strings.Cut(m.err.Error(), "\n")
		}
		fmt.Fprintf(out, "%-60s  %-26s  %-60s  %s\n", m.rule, m.name, caught, seconds(m.took))
		all += m.took
	}
	fmt.Fprintf(out, "\n%d mutants, %s of tests\n", len(mutants), seconds(all))
}

const docHead = `# Mutants

Written by ` + "`make mutants`" + `; do not edit it by hand. Each mutant is a patch under [tools/mutants/patches](../tools/mutants/patches)
that removes one rule of the delivery protocol from a copy of the code, and each was caught by the test named here. The
seconds are how long that took, without compiling. ` + "`make mutants NAME=i08`" + ` runs those whose name begins so.
`

var titles = map[string]string{
	"evidence":  "Rules whose absence lost events in the protocol's own trials",
	"invariant": "Invariants",
	"wire":      "The wire",
	"log":       "The path of an event, the log and the hub",
}

// writeDoc writes the table. Mutants that this run left out keep what the table
// said of them; those that were not caught have no row.
func writeDoc(o options, ran []*mutant) error {
	o.name = ""
	mutants, err := load(o)
	if err != nil {
		return err
	}
	path := filepath.Join(o.root, o.doc)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	results := map[string]string{} // by mutant: who caught it, and how long that took
	for _, line := range strings.Split(string(old), "\n") {
		if cells := strings.Split(line, " | "); len(cells) == 5 {
			results[cells[2]] = cells[3] + " | " + cells[4]
		}
	}
	for _, m := range ran {
		results[m.name] = cell(m.caught) + " | " + strings.TrimSuffix(seconds(m.took), " s") + " |"
		if m.err != nil {
			delete(results, m.name)
		}
	}
	var b strings.Builder
	b.WriteString(docHead)
	for _, source := range sources {
		fmt.Fprintf(&b, "\n## %s\n\n| Rule | Removed | Mutant | Caught by | s |\n|---|---|---|---|---|\n", titles[source])
		for _, m := range mutants {
			if result, ok := results[m.name]; ok && m.source == source {
				fmt.Fprintf(&b, "| %s | %s | %s | %s\n", cell(m.rule), cell(m.removes), m.name, result)
			}
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// cell is text that stays in its cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", "/") }

// check says which mutants do not apply any more or are not in the table, and
// which rows of the table have no mutant.
func check(ctx context.Context, o options, mutants []*mutant) error {
	var errs []error
	for _, m := range mutants {
		if err := applies(ctx, o.root, m, true); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	if o.doc == "" {
		return errors.Join(errs...)
	}
	doc, err := os.ReadFile(filepath.Join(o.root, o.doc))
	if err != nil {
		return err
	}
	rows := 0
	for _, m := range mutants {
		if !strings.Contains(string(doc), "| "+m.name+" |") {
			errs = append(errs, fmt.Errorf("%s: not in %s; run make mutants", m.name, o.doc))
		}
	}
	for _, line := range strings.Split(string(doc), "\n") {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| Rule |") {
			rows++
		}
	}
	if rows != len(mutants) {
		errs = append(errs, fmt.Errorf("%s has %d rows for %d mutants; run make mutants", o.doc, rows, len(mutants)))
	}
	return errors.Join(errs...)
}
