// Command mutants proves that every rule of the delivery protocol is held by a
// test. Each file under patches/ removes one rule from the code and names the
// test that has to turn red. The command applies them one by one to copies of
// the tree, never to the tree itself, and fails when a mutant survives, does not
// apply or does not compile, or when its test is red without it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	root, patches, doc, name string
	parallel                 int
	timeout                  time.Duration
	check                    bool
}

// run is the command, without its process.
func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.root, "root", ".", "the tree to mutate copies of")
	flags.StringVar(&o.patches, "patches", "tools/mutants/patches", "where the mutants are, below root")
	flags.StringVar(&o.doc, "doc", "", "write what became of them into the table in this file, below root")
	flags.StringVar(&o.name, "name", "", "run only mutants whose name begins with one of these, with commas between")
	flags.IntVar(&o.parallel, "parallel", 2, "how many run at a time")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "of one mutant's tests")
	flags.BoolVar(&o.check, "check", false, "only check that every mutant applies, and is in the table of -doc")
	if err := flags.Parse(args); err != nil {
		return err
	}
	mutants, err := load(o)
	if err != nil {
		return err
	}
	if o.check {
		return check(ctx, o, mutants)
	}
	return prove(ctx, o, mutants, out)
}

// prove runs every mutant and reports what became of it.
func prove(ctx context.Context, o options, mutants []*mutant, out io.Writer) error {
	copies := make([]*tree, max(1, min(o.parallel, len(mutants))))
	for i := range copies {
		t, err := copyTree(ctx, o.root)
		if err != nil {
			return err
		}
		defer t.remove()
		copies[i] = t
	}
	if err := proveClean(ctx, o, copies[0], mutants, out); err != nil {
		return err
	}
	queue := make(chan *mutant, len(mutants))
	for _, m := range mutants {
		queue <- m
	}
	close(queue)
	var mu sync.Mutex // guards out and failed
	failed := 0
	var wg sync.WaitGroup
	for _, t := range copies {
		wg.Go(func() {
			for m := range queue {
				if ctx.Err() != nil {
					return
				}
				m.err = t.prove(ctx, m, o.timeout)
				mu.Lock()
				if m.err != nil {
					failed++
					fmt.Fprintf(out, "%-26s %v\n", m.name, m.err)
				} else {
					fmt.Fprintf(out, "%-26s %s (%s)\n", m.name, m.caught, seconds(m.took))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	printTable(out, mutants)
	if o.doc != "" {
		if err := writeDoc(o, mutants); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d mutants were not caught", failed, len(mutants))
	}
	return nil
}

// proveClean runs the tests of all mutants on a tree that is whole, those of
// one package and one set of flags together.
func proveClean(ctx context.Context, o options, t *tree, mutants []*mutant, out io.Writer) error {
	type group struct{ pkg, flags string }
	patterns := map[group][]string{}
	var order []group
	for _, m := range mutants {
		g := group{m.pkg, strings.Join(m.flags, " ")}
		if len(patterns[g]) == 0 {
			order = append(order, g)
		}
		if !contains(patterns[g], m.run) {
			patterns[g] = append(patterns[g], m.run)
		}
	}
	for _, g := range order {
		whole := &mutant{pkg: g.pkg, run: strings.Join(patterns[g], "|"), flags: strings.Fields(g.flags)}
		began := time.Now()
		r, err := t.test(ctx, whole, 10*o.timeout)
		switch {
		case err != nil:
			return err
		case r.broken:
			return fmt.Errorf("%s does not compile as it is:\n%s", g.pkg, r.tail)
		case len(r.failed) > 0 || r.hung || !r.green:
			return fmt.Errorf("%s is red without any mutant: %s\n%s", g.pkg, strings.Join(r.failed, ", "), r.tail)
		}
		fmt.Fprintf(out, "%-26s green without mutants (%s)\n", g.pkg, seconds(time.Since(began)))
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
