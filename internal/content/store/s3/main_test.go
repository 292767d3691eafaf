package s3_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"wsdaemon.dev/ws-daemon/hack/stores"
)

// server is what all tests of the package talk to, each below a prefix of its own.
var server *stores.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // it may have to be built
	defer cancel()
	dir, err := os.MkdirTemp("", "s3-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		server, err = stores.StartS3(ctx, dir, os.Stderr)
		defer func() { _ = server.Stop() }()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
