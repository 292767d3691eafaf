package initializer_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox/sandboxtest"
)

// trusting runs git as somebody would who trusts the repository; it may fail.
func trusting(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
	_ = cmd.Run()
}

// listing describes every file below a directory: its name, mode, size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	NewWithT(t).Expect(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			b.WriteString(path + info.Mode().String() + info.ModTime().String() + "\n")
		}
		return err
	})).To(Succeed())
	return b.String()
}

// prebuilt returns a target in which a clone lies that somebody has built in, and the server, on which work went on since.
func prebuilt(t *testing.T, location string) (initializer.Target, *server) {
	t.Helper()
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	target := newTarget(t)
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url, CheckoutLocation: location})
	g.Expect(err).NotTo(HaveOccurred())
	dir := filepath.Join(target.Dir, location)
	write(t, dir, "build/out", "expensive")
	write(t, dir, "README", "left over")
	g.Expect(filepath.WalkDir(target.Dir, func(path string, _ fs.DirEntry, err error) error {
		g.Expect(err).NotTo(HaveOccurred())
		return os.Lchown(path, owner, owner+1)
	})).To(Succeed())
	work := t.TempDir()
	git(t, work, "clone", "--quiet", filepath.Join(s.root, "r.git"), ".")
	write(t, work, "README", "three")
	commit(t, work, "three")
	git(t, work, "push", "--quiet", "origin", "main")
	target.Begun = true
	return target, s
}

func TestGitUpdate(t *testing.T) {
	for name, tt := range map[string]struct {
		spec   initializer.GitSpec
		branch string
		readme string
	}{
		"remote head":  {initializer.GitSpec{}, "main", "three"},
		"branch":       {initializer.GitSpec{Branch: "feature/x"}, "feature/x", "one"},
		"local branch": {initializer.GitSpec{LocalBranch: "mine"}, "mine", "three"},
		"commit":       {initializer.GitSpec{Commit: "v1"}, "", "one"},
		"location":     {initializer.GitSpec{CheckoutLocation: "src/web"}, "main", "three"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target, s := prebuilt(t, tt.spec.CheckoutLocation)
			s.lock("s3cret")
			tt.spec.URL, tt.spec.Credentials = s.URL+"/r.git", withSecret("", "s3cret").Credentials
			if tt.spec.Commit != "" {
				tt.spec.Commit = s.id(t, "r", tt.spec.Commit)
			}
			result, err := newGit(t).Update(t.Context(), target, tt.spec)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(result.Git.Branch).To(Equal(tt.branch))
			dir := filepath.Join(target.Dir, tt.spec.CheckoutLocation)
			g.Expect(read(t, dir, "README")).To(Equal(tt.readme))
			g.Expect(read(t, dir, "build/out")).To(Equal("expensive"))
			g.Expect(git(t, dir, "status", "--porcelain")).To(Equal("?? build/"))
			expectOwner(t, target)
		})
	}
}

func TestGitUpdateErrors(t *testing.T) {
	g := NewWithT(t)
	target, s := prebuilt(t, "")
	for _, spec := range []initializer.GitSpec{{Branch: "nope"}, {Commit: strings.Repeat("ab", 20)}} {
		spec.URL = s.URL + "/r.git"
		_, err := newGit(t).Update(t.Context(), target, spec)
		g.Expect(err).To(And(MatchError(initializer.ErrNotFound), MatchError(ContainSubstring("does not exist in the repository"))))
	}
	s.lock("s3cret")
	_, err := newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
	g.Expect(err).To(MatchError(initializer.ErrUnauthorized))
	g.Expect(os.RemoveAll(filepath.Join(target.Dir, ".git"))).To(Succeed())
	g.Expect(os.Symlink("/etc", filepath.Join(target.Dir, ".git"))).To(Succeed())
	_, err = newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
	g.Expect(err).To(MatchError(initializer.ErrInvalid))
}

func TestGitUpdateClonesWhatIsNotThere(t *testing.T) {
	g := NewWithT(t)
	target, s := prebuilt(t, "web")
	_, err := newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git", CheckoutLocation: "docs"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, target.Dir, "docs/README")).To(Equal("three"))
	g.Expect(read(t, target.Dir, "web/README")).To(Equal("left over"))
}

// Who made the prebuild must not get at the credentials of who starts from it.
func TestS8_APoisonedPrebuildExecutesNothing(t *testing.T) {
	g := NewWithT(t)
	target, s := prebuilt(t, "web")
	web := filepath.Join(target.Dir, "web")
	canary := canaryIn(t, filepath.Join(target.Dir, "canaries"))
	poison(t, web, "/workspace/canaries/canary && cat /proc/self/fd/3 > /workspace/canaries/stolen")
	g.Expect(filepath.WalkDir(target.Dir, func(path string, _ fs.DirEntry, err error) error {
		g.Expect(err).NotTo(HaveOccurred())
		return os.Lchown(path, owner, owner+1)
	})).To(Succeed())
	s.lock("s3cret")
	spec := withSecret(s.URL+"/r.git", "s3cret")
	spec.CheckoutLocation = "web"
	_, err := newGit(t).Update(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, web, "README")).To(Equal("three"))
	g.Expect(os.ReadDir(filepath.Dir(canary))).To(BeEmpty())
	g.Expect(read(t, web, ".git/config")).NotTo(ContainSubstring("canary"))
	g.Expect(filepath.Join(web, ".git/hooks")).NotTo(BeADirectory())
}

// kill -9 of a daemon is the end of its git: the next start begins in an empty directory, which nobody else writes to.
func TestS5_NothingWritesAfterTheEnd(t *testing.T) {
	g := NewWithT(t)
	target := newTarget(t)
	ctx, cancel := context.WithCancel(t.Context())
	git := newGit(t)
	url := hanging(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = git.Run(ctx, target, initializer.GitSpec{URL: url})
	}()
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(target.Dir) }, "20s", "5ms").ShouldNot(BeEmpty())
	cancel()
	g.Eventually(done, "20s").Should(BeClosed())
	g.Expect(sandboxtest.ProcessesIn(target.Dir)).To(BeEmpty())
}
