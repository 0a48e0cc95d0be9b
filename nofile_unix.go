//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptors returns how many files this process may have open, 0 if that is not
// limited. The runtime has raised the soft limit to the hard one.
func descriptors() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || uint64(r.Cur) > math.MaxInt32 {
		return 0
	}
	return int(r.Cur)
}
