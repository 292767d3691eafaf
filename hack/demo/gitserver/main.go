// Command gitserver serves the bare git repositories of a directory over http on a free port of 127.0.0.1, read-only. It
// prints the address on one line and runs until SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// headerTimeout keeps a client that says nothing from holding its connection.
const headerTimeout = 10 * time.Second

func main() {
	root := flag.String("root", "", "the `directory` of bare repositories (required)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *root, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // The deferred stop was just called.
	}
}

// serve writes the address to out as soon as it is listened on, and returns when ctx ends.
func serve(ctx context.Context, root string, out io.Writer) error {
	backend, err := newBackend(ctx, root)
	if err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: readOnly(backend), ReadHeaderTimeout: headerTimeout}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if _, err := fmt.Fprintf(out, "http://%s\n", listener.Addr()); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", root, err)
	}
	return nil
}

// newBackend returns git's own server program as a handler.
func newBackend(ctx context.Context, root string) (http.Handler, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("serve repositories: --root must be an absolute path, not %q", root)
	}
	dir, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("ask git for its programs: %w", err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(dir)), "git-http-backend"),
		Dir:  root,
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	}, nil
}

// readOnly refuses pushes, which git would accept from a client that calls itself a user.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack" {
			http.Error(w, "this server is read-only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
