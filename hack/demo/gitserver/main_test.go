package main

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func git(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Env = append(cmd.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// startServer serves a directory until the test ends and returns the address.
func startServer(t *testing.T, root string) string {
	t.Helper()
	g := NewWithT(t)
	ctx, stop := context.WithCancel(t.Context())
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, root, out) }()
	t.Cleanup(func() {
		stop()
		g.Expect(<-done).To(Succeed())
	})
	line, err := bufio.NewReader(in).ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(line)
}

func TestClonesAndRefusesPushes(t *testing.T) {
	g := NewWithT(t)
	root, clone := t.TempDir(), filepath.Join(t.TempDir(), "clone")
	work := filepath.Join(t.TempDir(), "work")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work},
		{"-C", work, "commit", "-q", "--allow-empty", "-m", "first"},
		{"clone", "-q", "--bare", work, filepath.Join(root, "a.git")},
		{"-C", filepath.Join(root, "a.git"), "config", "http.receivepack", "true"},
	} {
		_, err := git(t, args...)
		g.Expect(err).NotTo(HaveOccurred(), "git %v", args)
	}
	address := startServer(t, root)

	_, err := git(t, "clone", "-q", address+"/a.git", clone)
	g.Expect(err).NotTo(HaveOccurred())
	subject, err := git(t, "-C", clone, "log", "--format=%s")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(subject).To(Equal("first\n"))

	_, err = git(t, "-C", clone, "commit", "-q", "--allow-empty", "-m", "second")
	g.Expect(err).NotTo(HaveOccurred())
	out, err := git(t, "-C", clone, "push", "-q", "origin", "main")
	g.Expect(err).To(HaveOccurred())
	g.Expect(out).To(ContainSubstring("403"))

	_, err = git(t, "ls-remote", address+"/missing.git")
	g.Expect(err).To(HaveOccurred())
}

func TestRefusesARelativeRoot(t *testing.T) {
	g := NewWithT(t)
	err := serve(t.Context(), "repositories", io.Discard)
	g.Expect(err).To(MatchError(`serve repositories: --root must be an absolute path, not "repositories"`))
}
