package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test's own program plays the floor, as the product's does.
func TestMain(m *testing.M) {
	if len(os.Args) == 7 && os.Args[1] == "bench" && os.Args[2] == "floor" {
		ln, err := net.Listen("tcp", os.Args[4])
		if err == nil {
			err = ServeFloor(context.Background(), ln, os.Args[6])
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}
