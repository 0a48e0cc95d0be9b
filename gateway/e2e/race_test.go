//go:build race

package e2e

// buildFlags builds the program under test the way the tests themselves are.
var buildFlags = []string{"-race"}
