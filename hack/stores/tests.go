package stores

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// testsTimeout is for a whole package's tests; the server may have to be built first.
const testsTimeout = 15 * time.Minute

// RunTests runs a package's tests, a *testing.M, beside a server that lies in a temporary directory, and returns their exit code.
func RunTests(tests interface{ Run() int }, server **Server, start func(ctx context.Context, dir string, log io.Writer) (*Server, error)) int {
	ctx, cancel := context.WithTimeout(context.Background(), testsTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "store-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		*server, err = start(ctx, dir, os.Stderr)
		defer func() { _ = (*server).Stop() }()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return tests.Run()
}
