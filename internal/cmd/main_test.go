package cmd

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// apiServer is a real API server, for the commands that need one.
var apiServer *cluster.Cluster

func TestMain(m *testing.M) {
	initializer.Enter()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ws-daemon-cmd-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if apiServer, err = cluster.Start(ctx, cluster.Options{Dir: dir, Log: os.Stderr}); err != nil {
		panic(err)
	}
	defer apiServer.Stop()
	if err := apiServer.InstallCRDs(ctx, "../../config/crd/bases"); err != nil {
		panic(err)
	}
	return m.Run()
}

// noLeaks expects that a test ends everything it started. Idle connections are the transport's own.
func noLeaks(t *testing.T) {
	t.Helper()
	ignored := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignored,
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http/internal/http2.(*ClientConn).readLoop"))
	})
}

// call runs a command line and returns what it printed.
func call(ctx context.Context, in string, args ...string) (string, error) {
	var out bytes.Buffer
	root := newRoot() //nolint:contextcheck // cobra passes the context to the command
	root.SetArgs(args)
	root.SetIn(strings.NewReader(in))
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// must runs a command line that has to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := call(t.Context(), "", args...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "ws-daemon %s", strings.Join(args, " "))
	return out
}

// refused runs a command line that has to fail, and returns why it did.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := call(t.Context(), "", args...)
	NewWithT(t).Expect(err).To(HaveOccurred(), "ws-daemon %s printed %s", strings.Join(args, " "), out)
	return err.Error()
}
