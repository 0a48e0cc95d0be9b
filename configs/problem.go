package configs

import (
	"fmt"
	"strings"
)

// A Problem is one thing wrong with a configuration, for the person who wrote
// it. It contains no secret.
type Problem struct {
	Where string // file:line, the environment variable, the flag, or else the key
	What  string // what is wrong, and what to do
}

// String returns where and what.
func (p Problem) String() string { return p.Where + ": " + p.What }

// Problems are all that is wrong with a configuration. As an error they print
// one to a line.
type Problems []Problem

// Error returns the problems, one to a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// orNil returns p as an error, or nil when there is no problem.
func (p Problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// quote shows a value that is no secret, cut to a readable length.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// showKey quotes a key up to the first byte that no key of ours has: in
// {token_secret=abc} the whole is a key.
func showKey(key string) string {
	for i, r := range key {
		if !strings.ContainsRune(nameBytes+"[]", r) {
			return quote(key[:i] + "…")
		}
	}
	return quote(key)
}

// nearest returns the name most like the given one. The last part of a path
// counts like the whole, so that a key in the wrong section is found.
func nearest(name string, names []string) string {
	best, least := "", -1
	for _, candidate := range names {
		d := distance(name, candidate)
		if lastPart(candidate) == lastPart(name) {
			d = min(d, 1)
		}
		if least < 0 || d < least {
			best, least = candidate, d
		}
	}
	return best
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is Levenshtein's: how many bytes to insert, delete or replace. Names
// longer than any of ours are cut: the answer is only a hint.
func distance(a, b string) int {
	const most = 100
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
