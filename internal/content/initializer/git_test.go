package initializer_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox/sandboxtest"
)

const owner = 33333

// newTarget returns an empty directory, below directories the owner may pass.
func newTarget(tb testing.TB) initializer.Target {
	tb.Helper()
	g := NewWithT(tb)
	base := tb.TempDir()
	g.Expect(os.Chmod(filepath.Dir(base), 0o711)).To(Succeed())
	dir := filepath.Join(base, "staging")
	g.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	return initializer.Target{Dir: dir, UID: owner, GID: owner + 1}
}

func TestMain(m *testing.M) {
	initializer.Enter()
	os.Exit(m.Run())
}

func newSandbox(tb testing.TB, visible ...string) *sandbox.Sandbox {
	tb.Helper()
	s, err := sandbox.New(tb.Context(), sandbox.Options{Visible: visible})
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	return s
}

func newGit(tb testing.TB, visible ...string) initializer.Git {
	tb.Helper()
	return initializer.Git{Sandbox: newSandbox(tb, visible...), AllowedSchemes: []string{"http", "https"}, Timeout: time.Minute, Deny: elsewhere()}
}

// elsewhere is a network that no test has anything in: that some are denied has git go through the relay.
func elsewhere() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")} }

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(b)
}

func TestEmpty(t *testing.T) {
	g := NewWithT(t)
	target := newTarget(t)
	result, err := initializer.Empty(t.Context(), target)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result).To(Equal(initializer.Result{Source: initializer.SourceEmpty}))
	info, err := os.Stat(target.Dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Mode()).To(Equal(fs.ModeDir | 0o755))
	expectOwner(t, target)
	g.Expect(os.ReadDir(target.Dir)).To(BeEmpty())
}

func TestEmptyRefusesContent(t *testing.T) {
	g := NewWithT(t)
	target := newTarget(t)
	write(t, target.Dir, "precious", "x")
	_, err := initializer.Empty(t.Context(), target)
	g.Expect(err).To(MatchError(ContainSubstring(`the directory is not empty ("precious" is there)`)))
}

func TestGitTargets(t *testing.T) {
	s := newServer(t)
	url := s.repo(t, "r")
	one, two, feature := s.id(t, "r", "v1"), s.id(t, "r", "main"), s.id(t, "r", "feature/x")
	tests := map[string]struct {
		spec   initializer.GitSpec
		head   initializer.GitHead
		readme string
		tracks string
	}{
		"remote head":  {initializer.GitSpec{}, initializer.GitHead{Branch: "main", Commit: two}, "two", "refs/heads/main"},
		"branch":       {initializer.GitSpec{Branch: "feature/x"}, initializer.GitHead{Branch: "feature/x", Commit: feature}, "one", "refs/heads/feature/x"},
		"local branch": {initializer.GitSpec{LocalBranch: "mine"}, initializer.GitHead{Branch: "mine", Commit: two}, "two", ""},
		"local branch with the name of the default": {
			initializer.GitSpec{LocalBranch: "main"}, initializer.GitHead{Branch: "main", Commit: two}, "two", "",
		},
		"local branch with the name of a remote one": {
			initializer.GitSpec{LocalBranch: "feature/x"}, initializer.GitHead{Branch: "feature/x", Commit: two}, "two", "",
		},
		"commit":            {initializer.GitSpec{Commit: one}, initializer.GitHead{Commit: one}, "one", ""},
		"commit upper case": {initializer.GitSpec{Commit: strings.ToUpper(one)}, initializer.GitHead{Commit: one}, "one", ""},
		"location": {
			initializer.GitSpec{CheckoutLocation: "src/web"}, initializer.GitHead{Branch: "main", Commit: two}, "two", "refs/heads/main",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			tt.spec.URL = url
			result, err := newGit(t).Run(t.Context(), target, tt.spec)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(result.Source).To(Equal(initializer.SourceGit))
			g.Expect(*result.Git).To(Equal(tt.head))
			dir := filepath.Join(target.Dir, tt.spec.CheckoutLocation)
			g.Expect(read(t, dir, "README")).To(Equal(tt.readme))
			g.Expect(os.Readlink(filepath.Join(dir, "link"))).To(Equal("README"))
			g.Expect(git(t, dir, "status", "--porcelain")).To(BeEmpty())
			g.Expect(git(t, dir, "for-each-ref", "--format=%(refname)", "refs/remotes/origin", "refs/tags")).To(Equal(
				"refs/remotes/origin/HEAD\nrefs/remotes/origin/feature/x\nrefs/remotes/origin/main\nrefs/tags/v1"))
			if tt.tracks != "" {
				g.Expect(git(t, dir, "config", "branch."+tt.head.Branch+".merge")).To(Equal(tt.tracks))
			} else {
				g.Expect(read(t, dir, ".git/config")).NotTo(ContainSubstring("[branch \"" + tt.head.Branch + "\"]"))
			}
			expectOwner(t, target)
		})
	}
}

// expectOwner also looks at modes: umask 022, whatever that of the daemon is.
func expectOwner(t *testing.T, target initializer.Target) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(filepath.WalkDir(target.Dir, func(path string, d fs.DirEntry, err error) error {
		g.Expect(err).NotTo(HaveOccurred())
		info, err := d.Info()
		g.Expect(err).NotTo(HaveOccurred())
		st := info.Sys().(*syscall.Stat_t)
		g.Expect([]uint32{st.Uid, st.Gid}).To(Equal([]uint32{target.UID, target.GID}), path)
		if d.IsDir() {
			g.Expect(info.Mode().Perm()).To(Equal(fs.FileMode(0o755)), path)
		} else if info.Mode().IsRegular() && !strings.Contains(path, "/objects/") {
			g.Expect(info.Mode().Perm()).To(BeElementOf(fs.FileMode(0o644), fs.FileMode(0o755)), path)
		}
		return nil
	})).To(Succeed())
}

func TestGitCommitOutsideBranches(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	bare := filepath.Join(s.root, "r.git")
	hidden := git(t, bare, "commit-tree", "-m", "hidden", "-p", "main", "main^{tree}")
	git(t, bare, "update-ref", "refs/pull/1/head", hidden)

	result, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url, Commit: hidden})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(*result.Git).To(Equal(initializer.GitHead{Commit: hidden}))
}

func TestGitEmptyRepository(t *testing.T) {
	s := newServer(t)
	git(t, s.root, "init", "--quiet", "--bare", "--initial-branch=trunk", "empty.git")
	for name, tt := range map[string]struct {
		spec initializer.GitSpec
		want string
	}{
		"remote head":  {initializer.GitSpec{}, "trunk"},
		"local branch": {initializer.GitSpec{LocalBranch: "mine"}, "mine"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tt.spec.URL = s.URL + "/empty.git"
			result, err := newGit(t).Run(t.Context(), newTarget(t), tt.spec)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(*result.Git).To(Equal(initializer.GitHead{Branch: tt.want}))
		})
	}
}

func TestGitErrors(t *testing.T) {
	s := newServer(t)
	url := s.repo(t, "r")
	git(t, s.root, "clone", "--quiet", "--bare", "r.git", "dangling.git")
	git(t, filepath.Join(s.root, "dangling.git"), "symbolic-ref", "HEAD", "refs/heads/gone")
	locked := newServer(t)
	locked.repo(t, "r")
	locked.lock("right")
	missing := strings.Repeat("ab", 20)
	tests := map[string]struct {
		spec    initializer.GitSpec
		is      error
		message string
	}{
		"missing repository":  {initializer.GitSpec{URL: s.URL + "/none.git"}, initializer.ErrNotFound, "not found"},
		"missing branch":      {initializer.GitSpec{URL: url, Branch: "nope"}, initializer.ErrNotFound, "Remote branch nope not found"},
		"tag is no branch":    {initializer.GitSpec{URL: url, Branch: "v1"}, initializer.ErrNotFound, `branch "v1" does not exist`},
		"missing commit":      {initializer.GitSpec{URL: url, Commit: missing}, initializer.ErrNotFound, "commit " + missing + " does not exist"},
		"dangling HEAD":       {initializer.GitSpec{URL: s.URL + "/dangling.git"}, initializer.ErrNotFound, "HEAD names a branch that does not exist"},
		"no credentials":      {initializer.GitSpec{URL: locked.URL + "/r.git"}, initializer.ErrUnauthorized, "could not read Username"},
		"bad credentials":     {withSecret(locked.URL+"/r.git", "wrong"), initializer.ErrUnauthorized, "Authentication failed"},
		"nothing listens":     {initializer.GitSpec{URL: "http://127.0.0.1:1/r.git"}, initializer.ErrFailed, "unable to access"},
		"invalid branch name": {initializer.GitSpec{URL: url, Branch: "a..b"}, initializer.ErrInvalid, `branch name "a..b" is not valid`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			started := time.Now()
			_, err := newGit(t).Run(t.Context(), newTarget(t), tt.spec)
			g.Expect(err).To(MatchError(tt.is))
			g.Expect(err).To(MatchError(ContainSubstring(tt.message)))
			g.Expect(time.Since(started)).To(BeNumerically("<", 20*time.Second))
			e := new(initializer.Error)
			g.Expect(errors.As(err, &e)).To(BeTrue())
			g.Expect(e.Message).NotTo(ContainSubstring("\n"))
		})
	}
}

func TestS6_GitRefusesInjection(t *testing.T) {
	id := strings.Repeat("a", 40)
	tests := map[string]initializer.GitSpec{
		"ext":                    {URL: "ext::sh -c touch% /tmp/owned"},
		"file":                   {URL: "file:///etc"},
		"path":                   {URL: "/etc"},
		"ssh option":             {URL: "ssh://-oProxyCommand=touch/x"},
		"ssh":                    {URL: "ssh://example.com/r.git"},
		"scp":                    {URL: "git@example.com:r.git"},
		"option":                 {URL: "--upload-pack=touch /tmp/owned"},
		"newline":                {URL: "https://example.com/\nhost=evil"},
		"carriage return":        {URL: "https://example.com/%0d\rx"},
		"quote in host":          {URL: "https://exa'mple.com/"},
		"shell in host":          {URL: "https://$(id).example.com/"},
		"host option":            {URL: "https://-u.example.com/"},
		"no host":                {URL: "https:///r.git"},
		"opaque":                 {URL: "https:example.com/r.git"},
		"fragment":               {URL: "https://example.com/r.git#x"},
		"empty":                  {URL: ""},
		"user":                   {URL: "https://bob@example.com/r.git"},
		"password":               {URL: "https://bob:hunter2@example.com/r.git"},
		"branch option":          {URL: "https://example.com/r.git", Branch: "--upload-pack=x"},
		"branch newline":         {URL: "https://example.com/r.git", Branch: "a\nb"},
		"branch HEAD":            {URL: "https://example.com/r.git", LocalBranch: "HEAD"},
		"short commit":           {URL: "https://example.com/r.git", Commit: "abc123"},
		"commit option":          {URL: "https://example.com/r.git", Commit: "--" + id[2:]},
		"two targets":            {URL: "https://example.com/r.git", Commit: id, Branch: "main"},
		"location up":            {URL: "https://example.com/r.git", CheckoutLocation: "../x"},
		"location absolute":      {URL: "https://example.com/r.git", CheckoutLocation: "/etc"},
		"location git":           {URL: "https://example.com/r.git", CheckoutLocation: "a/.git/hooks"},
		"location unclean":       {URL: "https://example.com/r.git", CheckoutLocation: "a//b"},
		"password with newline":  withSecret("https://example.com/r.git", "a\nhost=evil"),
		"credentials without":    withSecret("https://example.com/r.git", ""),
		"not in allowed schemes": {URL: "http://example.com/r.git"},
	}
	for name, spec := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			_, err := initializer.Git{Program: "/bin/false"}.Run(t.Context(), target, spec) // not even a sandbox is needed
			g.Expect(err).To(MatchError(initializer.ErrInvalid))
			g.Expect(err.Error()).NotTo(ContainSubstring("hunter2"))
			g.Expect(os.ReadDir(target.Dir)).To(BeEmpty())
		})
	}
}

func TestS6_GitIgnoresUnknownSchemesInConfiguration(t *testing.T) {
	g := NewWithT(t)
	git := initializer.Git{Program: "/bin/false", AllowedSchemes: []string{"ext", "file", "ssh"}}
	_, err := git.Run(t.Context(), newTarget(t), initializer.GitSpec{URL: "file:///etc"})
	g.Expect(err).To(MatchError(initializer.ErrInvalid))
}

func withSecret(url, password string) initializer.GitSpec {
	return initializer.GitSpec{URL: url, Credentials: &initializer.Credentials{Username: "bob-the-user", Password: password}}
}

// spy returns a git that writes down the arguments and environment of every git process, and of all their children
// by way of GIT_TRACE, and then is git. The log lies beside the repository, the only place that can be written to.
func spy(t *testing.T, target initializer.Target) (program, log string) {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o711)).To(Succeed())
	program = filepath.Join(dir, "git")
	const inside = "/workspace/log"
	script := "#!/bin/sh\n{ printf '%s\\n' \"$@\"; env; } >>" + inside + "\n" +
		"( while kill -0 $$ 2>/dev/null; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' >>" + inside + "; done ) &\n" +
		"GIT_TRACE=" + inside + " GIT_TRACE_CURL_NO_DATA=1 /usr/bin/git \"$@\"\n"
	g.Expect(os.WriteFile(program, []byte(script), 0o755)).To(Succeed())
	return program, filepath.Join(target.Dir, "log")
}

func TestS8_GitCredentialsAreNowhere(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	s.lock("s3cret-Pa55/word+x")
	target := newTarget(t)
	git := newGit(t)
	var log string
	git.Program, log = spy(t, target)
	git.Sandbox = newSandbox(t, filepath.Dir(git.Program))
	spec := withSecret(url, s.password)
	spec.CheckoutLocation = "web"

	result, err := git.Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Git.Branch).To(Equal("main"))

	g.Expect(read(t, target.Dir, "web/.git/config")).To(And(ContainSubstring("url = "+url), Not(ContainSubstring("credential"))))
	found := read(t, log)
	g.Expect(found).To(ContainSubstring("GIT_TERMINAL_PROMPT=0"), "the spy works")
	g.Expect(found).To(ContainSubstring("git remote-http"), "the spy sees children")
	for _, secret := range []string{s.password, "bob-the-user", "s3cret"} {
		g.Expect(strings.Contains(found, secret)).To(BeFalse(), secret)
	}
	out, _ := exec.CommandContext(t.Context(), "grep", "-rlaE", "s3cret|bob-the-user", target.Dir).CombinedOutput()
	g.Expect(string(out)).To(BeEmpty())
}

func TestGitConfigHasNoLeftovers(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	target := newTarget(t)
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Fields(git(t, target.Dir, "config", "--local", "--name-only", "--list"))).To(Equal([]string{
		"core.repositoryformatversion", "core.filemode", "core.bare", "core.logallrefupdates",
		"remote.origin.url", "remote.origin.fetch", "branch.main.remote", "branch.main.merge",
	}))
	g.Expect(filepath.Join(target.Dir, ".git/hooks")).NotTo(BeADirectory())
}

func TestS8_GitRedirectGetsNoCredentials(t *testing.T) {
	for name, password := range map[string]string{"open": "", "asks for a password": "other"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			evil := newServer(t)
			evil.repo(t, "r")
			evil.lock(password)
			var mu sync.Mutex
			var first []string
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				first = append(first, r.Header.Get("Authorization"))
				mu.Unlock()
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
					http.Error(w, "no", http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusFound)
			}))
			t.Cleanup(front.Close)

			_, err := newGit(t).Run(t.Context(), newTarget(t), withSecret(front.URL+"/r.git", "s3cret"))
			if password != "" {
				g.Expect(err).To(MatchError(initializer.ErrUnauthorized))
			}
			mu.Lock()
			defer mu.Unlock()
			g.Expect(first).To(ContainElement(HavePrefix("Basic ")), "the right host gets them")
			g.Expect(evil.authorizations()).NotTo(BeEmpty())
			g.Expect(evil.authorizations()).To(HaveEach(""))
		})
	}
}

// A machine with hooks in its templates and its configuration must not matter.
func TestS6_GitRunsNoHooks(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	dir := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o777)).To(Succeed())
	g.Expect(os.Chmod(dir, 0o777)).To(Succeed())
	canary := filepath.Join(dir, "ran")
	hook := "#!/bin/sh\ntouch " + canary + "\n"
	write(t, dir, "template/hooks/post-checkout", hook)
	g.Expect(os.Chmod(filepath.Join(dir, "template/hooks/post-checkout"), 0o755)).To(Succeed())
	write(t, dir, ".gitconfig", "[init]\n\ttemplateDir = "+dir+"/template\n[core]\n\thooksPath = "+dir+"/template/hooks\n")
	t.Setenv("HOME", dir)
	t.Setenv("GIT_TEMPLATE_DIR", dir+"/template")
	t.Setenv("GIT_CONFIG_GLOBAL", dir+"/.gitconfig")

	target := newTarget(t)
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(canary).NotTo(BeAnExistingFile())
	g.Expect(filepath.Join(target.Dir, ".git/hooks")).NotTo(BeADirectory())
}

func TestS6_GitDoesNotFetchSubmodules(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	s.repo(t, "sub")
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, ".gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = "+s.URL+"/sub.git\n")
	git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+s.id(t, "sub", "main")+",sub")
	git(t, work, "add", ".gitmodules")
	git(t, work, "commit", "--quiet", "--message", "m")
	git(t, s.root, "clone", "--quiet", "--bare", work, "r.git")

	target := newTarget(t)
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.ReadDir(filepath.Join(target.Dir, "sub"))).To(BeEmpty())
	g.Expect(filepath.Join(target.Dir, ".git/modules")).NotTo(BeADirectory())
}

// hanging answers nothing; only the client can end it.
func hanging(t *testing.T) string {
	t.Helper()
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); s.Close() })
	return s.URL + "/r.git"
}

func TestGitTimeout(t *testing.T) {
	g := NewWithT(t)
	git := newGit(t)
	git.Timeout = 300 * time.Millisecond
	started := time.Now()
	target := newTarget(t)
	_, err := git.Run(t.Context(), target, initializer.GitSpec{URL: hanging(t)})
	g.Expect(err).To(MatchError(initializer.ErrTimeout))
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
	g.Expect(time.Since(started)).To(BeNumerically("<", 4*time.Second))
	g.Expect(sandboxtest.ProcessesIn(target.Dir)).To(BeEmpty())
}

func TestGitCancelEndsTheWholeGroup(t *testing.T) {
	g := NewWithT(t)
	target := newTarget(t)
	git := newGit(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	url := hanging(t)
	go func() {
		_, err := git.Run(ctx, target, initializer.GitSpec{URL: url})
		done <- err
	}()
	g.Eventually(func() int { return len(sandboxtest.ProcessesIn(target.Dir)) }, "10s", "5ms").Should(BeNumerically(">=", 2))
	cancel()
	var err error
	g.Eventually(done, "4s").Should(Receive(&err))
	g.Expect(err).To(MatchError(initializer.ErrTimeout))
	g.Expect(err).To(MatchError(context.Canceled))
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(target.Dir) }, "2s", "5ms").Should(BeEmpty())
}

func TestGitLeavesNoChildren(t *testing.T) {
	g := NewWithT(t)
	target := newTarget(t)
	dir := t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o711)).To(Succeed())
	program := filepath.Join(dir, "git")
	g.Expect(os.WriteFile(program, []byte("#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\nexit 1\n"), 0o755)).To(Succeed())
	git := newGit(t, dir)
	git.Program = program
	_, err := git.Run(t.Context(), target, initializer.GitSpec{URL: "http://example.com/r.git"})
	g.Expect(err).To(MatchError(initializer.ErrFailed))
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(target.Dir) }, "2s", "5ms").Should(BeEmpty())
}

// With mounts of its own, git needs no way to its directory.
func TestGitBelowPrivateDirectories(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	target := newTarget(t)
	g.Expect(os.Chmod(filepath.Dir(target.Dir), 0o700)).To(Succeed())
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
}

func TestGitReportsProgress(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	git := newGit(t)
	var mu sync.Mutex
	stages := map[string]int{}
	git.Progress = func(p initializer.Progress) {
		mu.Lock()
		defer mu.Unlock()
		stages[p.Stage] = p.Percent
	}
	_, err := git.Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stages).To(HaveKeyWithValue("Receiving objects", 100))
}

func TestGitReportsWhatItMade(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	result, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]int64{result.Files, result.Bytes}).To(Equal([]int64{3, int64(len("two") + len("#!/bin/sh\n") + len("README"))}))
}
