package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const product = `package tiny

// Add adds.
func Add(a, b int) int {
	sum := a
	for range b {
		sum++
	}
	return sum
}

// Idle is tested by nothing.
func Idle() int {
	return 1
}
`

const productTest = `package tiny

import "testing"

func TestAdd(t *testing.T) {
	if got := Add(2, 3); got != 5 {
		t.Errorf("Add(2, 3) = %d, want 5", got)
	}
}

func TestIdle(t *testing.T) { _ = Idle() }
`

// newProduct makes a tree with one package, as git would see it.
func newProduct(t *testing.T, test string, patches map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{"go.mod": "module tiny\n\ngo 1.26\n", "tiny.go": product, "tiny_test.go": test}
	for name, text := range patches {
		files["tools/mutants/patches/"+name+".patch"] = text
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "init", "-q", root).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	return root
}

// patch puts the line now in the place of the line old between two others.
func patch(header, before, old, now, after string) string {
	return "source: log\nrule: r\nremoves: x\npackage: .\n" + header + "\n\n" +
		"--- a/tiny.go\n+++ b/tiny.go\n@@ -5,3 +5,3 @@\n " + before + "\n-" + old + "\n+" + now + "\n " + after + "\n"
}

// sum is a patch of the loop in Add.
func sum(header, now string) string {
	return patch(header, "	for range b {", "		sum++", now, "	}")
}

func TestOnlyARedTestCatches(t *testing.T) {
	mutants := map[string]struct{ text, want string }{
		"caught":      {sum("run: ^TestAdd$", "		sum--"), "TestAdd ("},
		"survives":    {patch("run: ^TestIdle$", "func Idle() int {", "	return 1", "	return 2", "}"), "SURVIVES"},
		"other-test":  {sum("run: ^TestIdle$", "		sum--"), "SURVIVES"},
		"no-compile":  {sum("run: ^TestAdd$", "		sum+"), "DOES NOT COMPILE"},
		"no-apply":    {patch("run: ^TestAdd$", "	for range b {", "		sum += 1", "		sum--", "	}"), "DOES NOT APPLY"},
		"no-test":     {sum("run: ^TestNone$", "		sum--"), "NO TEST"},
		"hangs":       {sum("run: ^TestAdd$\nhangs: 1s", "		for sum > 0 {}"), "TestAdd (by its time limit)"},
		"hangs-still": {sum("run: ^TestAdd$", "		for sum > 0 {}"), "HANGS"},
	}
	patches := map[string]string{}
	for name, m := range mutants {
		patches[name] = m.text
	}
	root := newProduct(t, productTest, patches)
	var out bytes.Buffer
	err := run(t.Context(), []string{"-root", root, "-timeout", "3s"}, &out)
	if err == nil || !strings.Contains(err.Error(), "6 of 8") {
		t.Errorf("run = %v, want an error that counts 6 of 8", err)
	}
	for name, m := range mutants {
		if !strings.Contains(out.String(), fmt.Sprintf("\n%-26s %s", name, m.want)) {
			t.Errorf("%s: want %q in\n%s", name, m.want, out.String())
		}
	}
	if text, err := os.ReadFile(filepath.Join(root, "tiny.go")); err != nil || string(text) != product {
		t.Errorf("the tree itself was changed (%v):\n%s", err, text)
	}
}

func TestTestsThatAreRedAnywayProveNothing(t *testing.T) {
	red := strings.Replace(productTest, "!= 5", "!= 6", 1)
	root := newProduct(t, red, map[string]string{"a": sum("run: ^TestAdd$", "		sum--")})
	err := run(t.Context(), []string{"-root", root}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "red without any mutant: TestAdd") {
		t.Errorf("run = %v, want that TestAdd is red without any mutant", err)
	}
}

func TestTableIsThatOfTheMutants(t *testing.T) {
	one := sum("run: ^TestAdd$", "		sum--")
	root := newProduct(t, productTest, map[string]string{"a": one})
	check := []string{"-root", root, "-check", "-doc", "mutants.md"}
	if err := run(t.Context(), []string{"-root", root, "-doc", "mutants.md"}, &bytes.Buffer{}); err != nil {
		t.Fatalf("run = %v, want nil", err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "mutants.md"))
	if err != nil || !strings.Contains(string(doc), "| r | x | a | TestAdd | ") {
		t.Errorf("table = %s, %v; want the mutant a", doc, err)
	}
	if err := run(t.Context(), check, &bytes.Buffer{}); err != nil {
		t.Errorf("check = %v, want nil", err)
	}
	second := filepath.Join(root, "tools/mutants/patches/b.patch")
	if err := os.WriteFile(second, []byte(one), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), check, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "b: not in") {
		t.Errorf("check with a new mutant = %v, want that b is missing", err)
	}
	alone := []string{"-root", root, "-name", "b", "-doc", "mutants.md"}
	if err := run(t.Context(), alone, &bytes.Buffer{}); err != nil {
		t.Errorf("run of b alone = %v, want nil", err)
	}
	if err := run(t.Context(), check, &bytes.Buffer{}); err != nil {
		t.Errorf("check after b ran alone = %v, want nil: a keeps its row", err)
	}
	if err := os.WriteFile(second, []byte(strings.Replace(one, "TestAdd", "TestIdle", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), alone, &bytes.Buffer{}); err == nil {
		t.Error("run of a mutant that survives = nil, want an error")
	}
	if err := run(t.Context(), check, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "b: not in") {
		t.Errorf("check after b survived = %v, want that it has no row", err)
	}
	if err := errors.Join(os.Remove(second), os.WriteFile(filepath.Join(root, "tiny.go"), []byte("package tiny\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), check, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "a: DOES NOT APPLY") {
		t.Errorf("check with other code = %v, want that a does not apply", err)
	}
}
