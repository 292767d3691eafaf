package harness

import (
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/onsi/gomega"
)

// GitServer serves a small repository over http on the loopback interface until the test ends, and returns its URL.
func (w *World) GitServer() string {
	w.t.Helper()
	root := filepath.Join(w.Dir, "git")
	work := filepath.Join(root, "work")
	w.must(os.MkdirAll(filepath.Join(work, "sub"), 0o755))
	w.must(os.WriteFile(filepath.Join(work, "README"), []byte("hello\n"), 0o600))
	w.must(os.WriteFile(filepath.Join(work, "sub", "run"), []byte("#!/bin/sh\n"), 0o700))
	w.git(work, "init", "--quiet", "--initial-branch=main")
	w.git(work, "add", ".")
	w.git(work, "-c", "user.name=Test", "-c", "user.email=test@example.invalid", "commit", "--quiet", "-m", "Say hello")
	w.git(root, "clone", "--quiet", "--bare", work, "hello.git")
	server := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(w.git(root, "--exec-path"), "git-http-backend"),
		Dir:  root,
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"},
	})
	w.t.Cleanup(server.Close)
	return server.URL + "/hello.git"
}

func (w *World) git(dir string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	w.g.Expect(err).NotTo(gomega.HaveOccurred(), "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}
