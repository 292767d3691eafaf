package initializer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// worked returns a clone in which somebody has worked, below a directory of its own.
func worked(t *testing.T) (dir string, s *server) {
	t.Helper()
	g := NewWithT(t)
	s = newServer(t)
	url := s.repo(t, "r")
	dir = t.TempDir()
	g.Expect(os.Chmod(filepath.Dir(dir), 0o711)).To(Succeed())
	git(t, dir, "clone", "--quiet", url, "web")
	return dir, s
}

func TestGitStatus(t *testing.T) {
	g := NewWithT(t)
	dir, s := worked(t)
	web := filepath.Join(dir, "web")
	clean, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(clean).To(Equal(initializer.GitState{GitHead: initializer.GitHead{Branch: "main", Commit: s.id(t, "r", "main")}}))

	git(t, web, "checkout", "--quiet", "-b", "mine")
	write(t, web, "new file", "x")
	commit(t, web, "a subject: with words")
	git(t, web, "mv", "README", "read me\nnow")
	write(t, web, "bin/run", "changed")
	write(t, web, "new file", "changed")
	git(t, web, "add", "new file")
	write(t, web, "un tracked/\xff\nfile", "x")
	write(t, web, "ignored", "x")
	write(t, web, ".git/info/exclude", "ignored\n")

	before := listing(t, dir)
	state, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state).To(Equal(initializer.GitState{
		GitHead:     initializer.GitHead{Branch: "mine", Commit: git(t, web, "rev-parse", "HEAD")},
		Uncommitted: []string{"bin/run", "new file", "read me\nnow"}, TotalUncommitted: 3,
		Untracked: []string{"un tracked/\uFFFD\nfile"}, TotalUntracked: 1,
		Unpushed: []string{git(t, web, "rev-parse", "--short", "HEAD") + " a subject: with words"}, TotalUnpushed: 1,
	}))
	g.Expect(listing(t, dir)).To(Equal(before), "nothing was written, not even the index")
}

func TestGitStatusListsAreShortAndTotalsExact(t *testing.T) {
	g := NewWithT(t)
	dir, _ := worked(t)
	web := filepath.Join(dir, "web")
	for i := range 150 {
		write(t, web, fmt.Sprintf("%03d-%s", i, strings.Repeat("n", 200)), "x")
	}
	for i := range 120 {
		git(t, web, "commit", "--quiet", "--allow-empty", "--message", fmt.Sprintf("commit %d %s", i, strings.Repeat("s", 1000)))
	}
	git(t, web, "checkout", "--quiet", "--detach")
	state, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state.Branch).To(BeEmpty())
	g.Expect(state.Untracked).To(HaveLen(100))
	g.Expect(state.TotalUntracked).To(Equal(int64(150)))
	g.Expect(state.Unpushed).To(And(HaveLen(100), HaveEach(HaveLen(512))))
	g.Expect(state.TotalUnpushed).To(Equal(int64(120)))
}

func TestGitStatusOfOddRepositories(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(t *testing.T, dir string)
		want initializer.GitState
		is   error
	}{
		"none": {func(*testing.T, string) {}, initializer.GitState{}, initializer.ErrNotFound},
		"unborn": {func(t *testing.T, dir string) {
			t.Helper()
			git(t, dir, "init", "--quiet", "--initial-branch=trunk")
		}, initializer.GitState{GitHead: initializer.GitHead{Branch: "trunk"}}, nil},
		"a link": {func(t *testing.T, dir string) {
			t.Helper()
			git(t, t.TempDir(), "init", "--quiet", dir+"/elsewhere")
			NewWithT(t).Expect(os.Symlink("elsewhere/.git", dir+"/.git")).To(Succeed())
		}, initializer.GitState{}, initializer.ErrInvalid},
		"a file": {func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, ".git", "gitdir: /etc\n")
		}, initializer.GitState{}, initializer.ErrInvalid},
		"damaged": {func(t *testing.T, dir string) {
			t.Helper()
			git(t, dir, "init", "--quiet")
			write(t, dir, ".git/index", "nonsense")
		}, initializer.GitState{}, initializer.ErrFailed},
		"long ids": {func(t *testing.T, dir string) {
			t.Helper()
			git(t, dir, "init", "--quiet", "--initial-branch=trunk", "--object-format=sha256")
			write(t, dir, "new", "x")
		}, initializer.GitState{GitHead: initializer.GitHead{Branch: "trunk"}, Untracked: []string{"new"}, TotalUntracked: 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			tt.make(t, dir)
			state, err := newGit(t).Status(t.Context(), dir, 0, 0, "")
			if tt.is != nil {
				g.Expect(err).To(MatchError(tt.is))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(state).To(Equal(tt.want))
		})
	}
}

// poison lets a repository name programs in every way that git knows. All of them would touch the canary.
func poison(t *testing.T, repository, canary string) {
	t.Helper()
	g := NewWithT(t)
	program := "touch " + canary
	write(t, repository, ".git/included", "[core]\n\tsshCommand = "+program+"\n")
	write(t, repository, ".git/config", read(t, repository, ".git/config")+"[core]\n\tfsmonitor = "+program+"\n\tpager = "+program+"\n\teditor = "+program+
		"\n\tsshCommand = "+program+"\n\thooksPath = "+filepath.Join(repository, ".git/evil")+"\n\taskPass = "+program+"\n\tgitProxy = "+program+
		"\n\tattributesFile = "+filepath.Join(repository, ".git/attributes")+"\n[credential]\n\thelper = \"!"+program+"\"\n[filter \"evil\"]\n\tclean = "+program+
		"\n\tsmudge = "+program+"\n\tprocess = "+program+"\n\trequired = true\n[diff \"evil\"]\n\ttextconv = "+program+"\n\tcommand = "+program+
		"\n[diff]\n\texternal = "+program+"\n[merge \"evil\"]\n\tdriver = "+program+"\n[gpg]\n\tprogram = "+program+"\n[log]\n\tshowSignature = true\n[alias]\n\tstatus = \"!"+program+
		"\"\n[include]\n\tpath = included\n[uploadpack]\n\tpackObjectsHook = "+program+"\n[url \"ext::"+program+"\"]\n\tinsteadOf = http\n[protocol]\n\tallow = always\n"+
		"[status]\n\tsubmoduleSummary = true\n[remote \"origin\"]\n\tuploadpack = "+program+"\n\tproxy = http://127.0.0.1:1\n\tvcs = evil\n")
	write(t, repository, ".git/attributes", "* filter=evil diff=evil merge=evil\n")
	write(t, repository, ".git/info/attributes", "* filter=evil diff=evil merge=evil\n")
	write(t, repository, ".gitattributes", "* filter=evil diff=evil merge=evil\n")
	write(t, repository, ".git/config.worktree", "[core]\n\tfsmonitor = "+program+"\n")
	for _, dir := range []string{"hooks", "evil"} {
		for _, hook := range []string{"post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman", "pre-auto-gc", "post-merge"} {
			name := ".git/" + dir + "/" + hook
			write(t, repository, name, "#!/bin/sh\n"+program+"\n")
			g.Expect(os.Chmod(filepath.Join(repository, name), 0o755)).To(Succeed())
		}
	}
}

// canaryIn returns the name of a file that everybody may make, beside the repository: the only place where a sandboxed program could.
func canaryIn(t *testing.T, dir string) string {
	t.Helper()
	NewWithT(t).Expect(os.MkdirAll(dir, 0o777)).To(Succeed())
	NewWithT(t).Expect(os.Chmod(dir, 0o777)).To(Succeed())
	return filepath.Join(dir, "canary")
}

func TestS6_GitStatusExecutesNothing(t *testing.T) {
	g := NewWithT(t)
	dir, _ := worked(t)
	web := filepath.Join(dir, "web")
	write(t, web, "README", "changed, so that filters would run")
	// Inside, the content lies elsewhere; there it cannot be written to, so the proof is that git says nothing of a program that failed, too.
	poison(t, web, "/tmp/canary && cat /proc/self/fd/* && false")
	state, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state.Uncommitted).To(Equal([]string{"README"}))
	g.Expect(state.Untracked).To(Equal([]string{".gitattributes"}))
	g.Expect("/tmp/canary").NotTo(BeAnExistingFile())

	// The same repository is dangerous for a git that trusts it: else this would prove nothing.
	canary := canaryIn(t, filepath.Join(dir, "canaries"))
	poison(t, web, canary)
	trusting(t, web, "status")
	g.Expect(canary).To(BeAnExistingFile())
}

func TestS6_GitStatusDoesNotLeaveTheContent(t *testing.T) {
	g := NewWithT(t)
	dir, s := worked(t)
	web := filepath.Join(dir, "web")
	s.repo(t, "secret")
	secret := filepath.Join(s.root, "secret.git")
	g.Expect(os.RemoveAll(filepath.Join(web, ".git/objects"))).To(Succeed())
	write(t, web, ".git/objects/info/alternates", secret+"/objects\n")
	write(t, web, ".git/packed-refs", s.id(t, "secret", "main")+" refs/heads/stolen\n")
	_, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).To(HaveOccurred(), "the objects are out of reach")
}
