package initializer_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
)

// server is a real git server. It records what it is asked.
type server struct {
	*httptest.Server
	root string

	mu       sync.Mutex
	password string // "" lets everybody in
	token    string // a bearer token, in place of a password
	lfs      map[string]string
	seen     []string
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{root: tb.TempDir()}
	s.Server = httptest.NewServer(s)
	tb.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Header.Get("Authorization"))
	password, token := s.password, s.token
	s.mu.Unlock()
	if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if _, got, _ := r.BasicAuth(); password != "" && got != password {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if s.serveLFS(w, r) {
		return
	}
	body, _ := io.ReadAll(r.Body) // the handler takes no body whose size is not known
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	backend := &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}
	backend.ServeHTTP(w, r)
}

// lock lets in only who knows the password.
func (s *server) lock(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = password
}

// bearer lets in only who has the token.
func (s *server) bearer(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
}

func (s *server) authorizations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// repo creates a bare repository with main (two commits, a tag), feature, and an executable, and returns its URL.
func (s *server) repo(t *testing.T, name string) string {
	t.Helper()
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, "README", "one")
	write(t, work, "bin/run", "#!/bin/sh\n")
	NewWithT(t).Expect(os.Chmod(filepath.Join(work, "bin/run"), 0o755)).To(Succeed())
	NewWithT(t).Expect(os.Symlink("README", filepath.Join(work, "link"))).To(Succeed())
	commit(t, work, "one")
	git(t, work, "tag", "v1")
	git(t, work, "branch", "feature/x")
	write(t, work, "README", "two")
	commit(t, work, "two")
	git(t, work, "checkout", "--quiet", "feature/x")
	write(t, work, "FEATURE", "x")
	commit(t, work, "feature")
	git(t, work, "checkout", "--quiet", "main")
	git(t, s.root, "clone", "--quiet", "--bare", work, name+".git")
	return s.URL + "/" + name + ".git"
}

func (s *server) id(t *testing.T, name, rev string) string {
	t.Helper()
	return git(t, filepath.Join(s.root, name+".git"), "rev-parse", rev)
}

func commit(tb testing.TB, dir, message string) {
	tb.Helper()
	git(tb, dir, "add", ".")
	git(tb, dir, "commit", "--quiet", "--message", message)
}

func write(tb testing.TB, dir, name, content string) {
	tb.Helper()
	g := NewWithT(tb)
	path := filepath.Join(dir, name)
	g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(path, []byte(content), 0o644)).To(Succeed())
}

// git runs git for the test itself, trusting every directory.
func git(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "git", append([]string{"-c", "safe.directory=*"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_OPTIONAL_LOCKS=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	out, err := cmd.CombinedOutput()
	NewWithT(tb).Expect(err).NotTo(HaveOccurred(), "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}
