package initializer_test

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// What can be written arrives as it is, whatever it is called.
func TestS6_OddNamesInARepository(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	long, raw := strings.Repeat("n", 250)+"\xff.txt", "\xfe\xff\n\t\x1b[31m name"
	deep := strings.Repeat("d/", 1000)
	url := s.hostile(t, "odd", func(r string) string {
		blob := object(t, r, "blob", []byte("x"))
		below := rawTree(t, r, treeEntry{"100644", "f", blob})
		for range 1000 {
			below = rawTree(t, r, treeEntry{"40000", "d", below})
		}
		return rawTree(t, r, treeEntry{"100644", "-rf", blob}, treeEntry{"40000", "d", treeOf(t, r, below)}, treeEntry{"100644", long, blob}, treeEntry{"100644", raw, blob})
	})
	target := newTarget(t)
	result, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Files).To(Equal(int64(4)))
	for _, name := range []string{"-rf", long, raw, deep + "f"} {
		g.Expect(read(t, target.Dir, name)).To(Equal("x"), "%q", name)
	}
	expectOwner(t, target)

	write(t, target.Dir, deep+"new", "x")
	state, err := newGit(t).Status(t.Context(), target.Dir, owner, owner+1, "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]int64{state.TotalUncommitted, state.TotalUntracked}).To(Equal([]int64{0, 1}))
}

// treeOf returns what is one level below.
func treeOf(t *testing.T, repository, tree string) string {
	t.Helper()
	return strings.Fields(git(t, repository, "ls-tree", tree))[2]
}

// What cannot be written is an error that names it, and no attempt is made again for it.
func TestS6_NamesThatNoFileSystemTakes(t *testing.T) {
	s := newServer(t)
	for name, tree := range map[string]func(r string) string{
		"256-bytes": func(r string) string {
			return rawTree(t, r, treeEntry{"100644", strings.Repeat("n", 256), object(t, r, "blob", []byte("x"))})
		},
		"deep": func(r string) string {
			below := rawTree(t, r, treeEntry{"100644", "f", object(t, r, "blob", []byte("x"))})
			for range 3000 {
				below = rawTree(t, r, treeEntry{"40000", "d", below})
			}
			return below
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: s.hostile(t, name, tree)})
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(Or(ContainSubstring("File name too long"), ContainSubstring("has a path of ")))))
		})
	}
}

func TestS6_HugeRefs(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	id := s.id(t, "r", "main")
	lines := []string{id + " refs/heads/main", id + " refs/heads/z" + strings.Repeat("/"+strings.Repeat("n", 250), 15)}
	for i := range 20_000 {
		lines = append(lines, fmt.Sprintf("%s refs/heads/zz/%06d", id, i))
	}
	write(t, s.root, "r.git/packed-refs", "# pack-refs with: sorted \n"+strings.Join(lines, "\n")+"\n")
	target := newTarget(t)
	result, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Git.Commit).To(Equal(id))
	g.Expect(strings.Count(git(t, target.Dir, "for-each-ref", "refs/remotes/origin/zz"), "\n")).To(Equal(19_999))
	state, err := newGit(t).Status(t.Context(), target.Dir, owner, owner+1, "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state.Branch).To(Equal("main"))
}

// More submodules of the kind that has been used for attacks. None is even asked for.
func TestS6_SubmodulesThatLeadElsewhere(t *testing.T) {
	s := newServer(t)
	s.repo(t, "leaf")
	id := s.id(t, "leaf", "main")
	gitmodules := func(r, name, path string) treeEntry {
		return treeEntry{"100644", ".gitmodules", object(t, r, "blob", []byte(fmt.Sprintf("[submodule \"%s\"]\n\tpath = \"%s\"\n\turl = %s/leaf.git\n", name, path, s.URL)))}
	}
	for name, tt := range map[string]struct {
		tree func(r string) string
		want string
	}{
		"name-up": {func(r string) string {
			return rawTree(t, r, gitmodules(r, "../../evil", "a"), treeEntry{"160000", "a", id})
		}, "gitmodulesName"},
		"through-a-link": {func(r string) string {
			return rawTree(t, r, gitmodules(r, "a", "way/a"), treeEntry{"120000", "way", object(t, r, "blob", []byte(".git"))})
		}, "enter way"},
		"in-place-of-a-link": {func(r string) string {
			return rawTree(t, r, gitmodules(r, "a", "way"), treeEntry{"120000", "way", object(t, r, "blob", []byte(".git/modules/a/hooks"))})
		}, "enter way"},
		"link-and-submodule": {func(r string) string {
			return rawTree(t, r, gitmodules(r, "a", "way"), treeEntry{"120000", "way", object(t, r, "blob", []byte(".git"))}, treeEntry{"160000", "way", id})
		}, "duplicateEntries"},
		"carriage-return-beside-a-link": {func(r string) string {
			return rawTree(t, r, gitmodules(r, "a", "way\r"), treeEntry{"120000", "way", object(t, r, "blob", []byte(".git/modules/a/hooks"))},
				treeEntry{"160000", "way\r", id})
		}, "control characters"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.hostile(t, name, tt.tree), Submodules: true})
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(Or(ContainSubstring(tt.want), ContainSubstring("fsck error")))))
			g.Expect(filepath.Join(target.Dir, ".git/modules")).NotTo(BeADirectory())
		})
	}
}

// attacked makes what CVE-2025-48384 needs: a submodule whose path ends with a carriage return, a link where the path leads without it,
// and a submodule that has a hook where the link leads.
func (s *server) attacked(t *testing.T, canary string) string {
	t.Helper()
	leaf := t.TempDir()
	git(t, leaf, "init", "--quiet", "--initial-branch=main")
	write(t, leaf, "post-checkout", "#!/bin/sh\ntouch "+canary+"\n")
	NewWithT(t).Expect(os.Chmod(filepath.Join(leaf, "post-checkout"), 0o755)).To(Succeed())
	commit(t, leaf, "m")
	git(t, s.root, "clone", "--quiet", "--bare", leaf, "hook.git")
	id := s.id(t, "hook", "main")
	return s.hostile(t, "attack", func(r string) string {
		text := "[submodule \"a\"]\n\tpath = \"sub\r\"\n\turl = " + s.URL + "/hook.git\n"
		return rawTree(t, r, treeEntry{"100644", ".gitmodules", object(t, r, "blob", []byte(text))},
			treeEntry{"120000", "sub", object(t, r, "blob", []byte(".git/modules/a/hooks"))}, treeEntry{"160000", "sub\r", id})
	})
}

// The git of this machine, which is that of the image's distribution, without any of our options: the attacks that were published do
// nothing. A version number would prove less: distributions mend older versions.
func TestS6_PublishedAttacksOnGitItself(t *testing.T) {
	plain := func(t *testing.T, dir, input string, args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(input)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Run("CVE-2025-48384, carriage return in a submodule's path", func(t *testing.T) {
		g := NewWithT(t)
		s, dir := newServer(t), t.TempDir()
		canary := filepath.Join(dir, "canary")
		out, err := plain(t, dir, "", "clone", "--quiet", "--recurse-submodules", s.attacked(t, canary), "r")
		g.Expect(canary).NotTo(BeAnExistingFile(), "%s %v", out, err)
	})
	t.Run("CVE-2024-52006, carriage return in what a helper is asked", func(t *testing.T) {
		g := NewWithT(t)
		out, err := plain(t, t.TempDir(), "url=https://good.example.com%0d.evil.example.com/\n", "-c", "credential.helper=!echo username=u; echo password=leak; :", "credential", "fill")
		g.Expect(err).To(HaveOccurred(), out)
		g.Expect(out).NotTo(ContainSubstring("leak"))
	})
	t.Run("CVE-2020-5260, newline in what a helper is asked", func(t *testing.T) {
		g := NewWithT(t)
		out, err := plain(t, t.TempDir(), "url=https://good.example.com%0ahost=evil.example.com/\n", "-c", "credential.helper=!echo username=u; echo password=leak; :", "credential", "fill")
		g.Expect(err).To(HaveOccurred(), out)
		g.Expect(out).NotTo(ContainSubstring("leak"))
	})
	t.Run("CVE-2024-32002, submodule behind a link", func(t *testing.T) {
		g := NewWithT(t)
		s, dir := newServer(t), t.TempDir()
		s.repo(t, "leaf")
		url := s.hostile(t, "attack", func(r string) string {
			text := "[submodule \"a\"]\n\tpath = way/hooks\n\turl = " + s.URL + "/leaf.git\n"
			hooks := rawTree(t, r, treeEntry{"160000", "hooks", s.id(t, "leaf", "main")})
			return rawTree(t, r, treeEntry{"100644", ".gitmodules", object(t, r, "blob", []byte(text))},
				treeEntry{"120000", "way", object(t, r, "blob", []byte(".git"))}, treeEntry{"40000", "way", hooks})
		})
		out, _ := plain(t, dir, "", "clone", "--quiet", "--recurse-submodules", url, "r")
		g.Expect(filepath.Join(dir, "r/.git/hooks/README")).NotTo(BeAnExistingFile(), out)
	})
	t.Run("CVE-2018-11235, submodule name that leads up", func(t *testing.T) {
		g := NewWithT(t)
		s, dir := newServer(t), t.TempDir()
		s.repo(t, "leaf")
		url := s.hostile(t, "attack", func(r string) string {
			text := "[submodule \"../../evil\"]\n\tpath = a\n\turl = " + s.URL + "/leaf.git\n"
			return rawTree(t, r, treeEntry{"100644", ".gitmodules", object(t, r, "blob", []byte(text))}, treeEntry{"160000", "a", s.id(t, "leaf", "main")})
		})
		out, _ := plain(t, dir, "", "clone", "--quiet", "--recurse-submodules", url, "r")
		g.Expect(filepath.Join(dir, "r/evil")).NotTo(BeADirectory(), out)
		g.Expect(filepath.Join(dir, "evil")).NotTo(BeADirectory(), out)
	})
	t.Run("CVE-2025-48385, a bundle where the server says", func(t *testing.T) {
		g := NewWithT(t)
		s, other, dir := newServer(t), newServer(t), t.TempDir()
		url := s.repo(t, "r")
		bare := filepath.Join(s.root, "r.git")
		for key, value := range map[string]string{"uploadpack.advertiseBundleURIs": "true", "bundle.version": "1", "bundle.mode": "all", "bundle.a.uri": other.URL + "/a\nb"} {
			git(t, bare, "config", key, value)
		}
		out, err := plain(t, dir, "", "clone", "--quiet", url, "r")
		g.Expect(err).NotTo(HaveOccurred(), out)
		g.Expect(other.authorizations()).To(BeEmpty(), "no request")
	})
}

// The same attacks through the initializer, in the sandbox.
func TestS6_PublishedAttacks(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	target := newTarget(t)
	canary := canaryIn(t, filepath.Join(filepath.Dir(target.Dir), "canaries"))
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.attacked(t, canary), Submodules: true})
	g.Expect(err).To(MatchError(initializer.ErrInvalid))
	g.Expect(canary).NotTo(BeAnExistingFile())
	g.Expect(filepath.Join(target.Dir, ".git/modules")).NotTo(BeADirectory())
}

// badServer answers requests of git in a way of its own; what it leaves to the other one is answered well.
func badServer(t *testing.T, good http.Handler, bad func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !bad(w, r) {
			good.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/r.git"
}

func TestGitFromServersThatMisbehave(t *testing.T) {
	s := newServer(t)
	s.repo(t, "r")
	answers := func(code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "s3cret words", code)
			return true
		}
	}
	isPack := func(r *http.Request) bool { return r.Method == http.MethodPost }
	for name, tt := range map[string]struct {
		bad  func(w http.ResponseWriter, r *http.Request) bool
		is   error
		want string
	}{
		"401": {answers(401), initializer.ErrUnauthorized, "could not read Username"},
		"403": {answers(403), initializer.ErrUnauthorized, "403"},
		"404": {answers(404), initializer.ErrNotFound, "not found"},
		"429": {answers(429), initializer.ErrFailed, "429"},
		"500": {answers(500), initializer.ErrFailed, "500"},
		"no git": {func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte("<html>welcome</html>"))
			return true
		}, initializer.ErrNotFound, "no git server"},
		"no git, but lines": {func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte("<html>\nwelcome\n</html>\n"))
			return true
		}, initializer.ErrNotFound, "not valid: is this a git repository?"},
		"nothing": {func(http.ResponseWriter, *http.Request) bool { return true }, initializer.ErrNotFound, "no git server"},
		"drops half way": {func(w http.ResponseWriter, r *http.Request) bool {
			if isPack(r) {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				w.Header().Set("Content-Length", "100000")
				_, _ = w.Write([]byte("001e# service"))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			return false
		}, initializer.ErrFailed, "git clone: "},
		"stalls": {func(_ http.ResponseWriter, r *http.Request) bool {
			if isPack(r) {
				_, _ = io.Copy(io.Discard, r.Body) // else nobody would notice that the client is gone
				<-r.Context().Done()
			}
			return false
		}, initializer.ErrFailed, "Operation too slow"},
		"other scheme": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "ftp://example.com/r.git", http.StatusFound)
			return true
		}, initializer.ErrInvalid, "ftp"},
		"loop": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusFound)
			return true
		}, initializer.ErrFailed, "redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			git := newGit(t)
			if name == "stalls" {
				git.Stall = 2e9
			}
			_, err := git.Run(t.Context(), newTarget(t), initializer.GitSpec{URL: badServer(t, s, tt.bad)})
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
		})
	}
	t.Run("TLS", func(t *testing.T) {
		g := NewWithT(t)
		secure := httptest.NewTLSServer(s)
		t.Cleanup(secure.Close)
		_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: secure.URL + "/r.git"})
		g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring("certificate"))))
	})
	t.Run("no host", func(t *testing.T) {
		g := NewWithT(t)
		_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: "https://no-such-host.invalid/r.git"})
		g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring("no-such-host.invalid"))))
	})
}

func TestGitOntoAVolumeThatIsFullInTheMiddle(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	noise := make([]byte, 8<<20)
	_, err := unix.Getrandom(noise, 0)
	g.Expect(err).NotTo(HaveOccurred())
	for i := 0; i < len(noise); i += 1 << 20 { // of what one call gives, and of each part in a place of its own
		copy(noise[i:], fmt.Sprint(i))
	}
	write(t, work, "noise", string(noise))
	commit(t, work, "m")
	git(t, s.root, "clone", "--quiet", "--bare", work, "r.git")
	_, err = newGit(t).Run(t.Context(), mounted(t, "size=2m"), initializer.GitSpec{URL: s.URL + "/r.git"})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring("No space left on device"))))
}

// Whatever lies where refs or the index should be, a look ends in time, and says nothing that is wrong.
func TestS6_GitStatusOfHostileRepositories(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(g *WithT, dir string)
		want string
	}{
		"HEAD is a pipe":     {func(g *WithT, dir string) { pipe(g, dir+"/.git/HEAD") }, "HEAD is no file"},
		"HEAD leads out":     {func(g *WithT, dir string) { link(g, "/etc/hostname", dir+"/.git/HEAD") }, "path escapes"},
		"refs are too large": {func(_ *WithT, dir string) { write(t, dir, ".git/packed-refs", strings.Repeat("x", 9<<20)) }, "its refs are too large"},
		"a ref is too large": {func(_ *WithT, dir string) { write(t, dir, ".git/refs/heads/x", strings.Repeat("x", 5000)) }, "its refs are too large"},
		"reftable":           {func(_ *WithT, dir string) { write(t, dir, ".git/HEAD", "ref: refs/heads/.invalid\n") }, "reftable"},
		"objects lead out":   {func(g *WithT, dir string) { link(g, "/etc", dir+"/.git/objects") }, ""},
		"index is a directory": {func(g *WithT, dir string) {
			g.Expect(os.Remove(dir + "/.git/index")).To(Succeed())
			write(t, dir, ".git/index/x", "")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, _ := worked(t)
			tt.make(g, filepath.Join(dir, "web"))
			_, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
			g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring(tt.want))))
		})
	}
}

func pipe(g *WithT, path string) {
	g.Expect(os.RemoveAll(path)).To(Succeed())
	g.Expect(unix.Mkfifo(path, 0o644)).To(Succeed())
}

func link(g *WithT, to, path string) {
	g.Expect(os.RemoveAll(path)).To(Succeed())
	g.Expect(os.Symlink(to, path)).To(Succeed())
}

// Refs that name others, that are links, or have names that no ref has, are left out; loose ones count more than packed ones.
func TestGitStatusReadsRefsInEveryForm(t *testing.T) {
	g := NewWithT(t)
	dir, s := worked(t)
	web := filepath.Join(dir, "web")
	git(t, web, "checkout", "--quiet", "-b", "mine")
	git(t, web, "pack-refs", "--all")
	git(t, web, "commit", "--quiet", "--allow-empty", "--message", "one")
	git(t, web, "config", "core.splitIndex", "true")
	git(t, web, "update-index", "--split-index")
	g.Expect(fs.Glob(os.DirFS(filepath.Join(web, ".git")), "sharedindex.*")).NotTo(BeEmpty())
	write(t, web, ".git/refs/heads/odd name", s.id(t, "r", "main")+"\n")
	write(t, web, ".git/refs/heads/nonsense", "nonsense\n")
	link(g, "mine", filepath.Join(web, ".git/refs/heads/alias"))
	write(t, web, "new", "x")
	state, err := newGit(t).Status(t.Context(), dir, 0, 0, "web")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(state.Branch).To(Equal("mine"))
	g.Expect([]int64{state.TotalUnpushed, state.TotalUncommitted, state.TotalUntracked}).To(Equal([]int64{1, 0, 1}))
}

// A prebuild whose repository is no directory, or borrows from elsewhere, is not one.
func TestS6_HostilePrebuilds(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(g *WithT, dir string)
		want error
	}{
		".git is a file": {func(g *WithT, dir string) {
			g.Expect(os.RemoveAll(dir + "/.git")).To(Succeed())
			write(t, dir, ".git", "gitdir: /etc\n")
		}, initializer.ErrInvalid},
		"config is a link":   {func(g *WithT, dir string) { link(g, "/etc/passwd", dir+"/.git/config") }, initializer.ErrInvalid},
		"config is a pipe":   {func(g *WithT, dir string) { pipe(g, dir+"/.git/config") }, initializer.ErrInvalid},
		"alternates outside": {func(_ *WithT, dir string) { write(t, dir, ".git/objects/info/alternates", "/etc\n") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target, s := prebuilt(t, "")
			tt.make(g, target.Dir)
			_, err := newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
			if tt.want != nil {
				g.Expect(err).To(MatchError(tt.want))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(filepath.Join(target.Dir, ".git/objects/info/alternates")).NotTo(BeAnExistingFile())
		})
	}
}
