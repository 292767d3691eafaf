package initializer_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// owned gives all of a target to its owner.
func owned(t *testing.T, target initializer.Target) {
	t.Helper()
	NewWithT(t).Expect(filepath.WalkDir(target.Dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(target.UID), int(target.GID)))
	})).To(Succeed())
}

// thief is what a poisoned repository has run: it leaves a canary beside it, and the credentials.
const thief = "/workspace/canaries/canary && cat /proc/self/fd/3 > /workspace/canaries/stolen"

// surrounded makes the target itself a repository that names programs in every way, and returns the directory in which they would leave
// something. The repository is dangerous for a git that trusts it: else this would prove nothing.
func surrounded(t *testing.T, target initializer.Target, url string) (canaries string) {
	t.Helper()
	g := NewWithT(t)
	canary := canaryIn(t, filepath.Join(target.Dir, "canaries"))
	git(t, target.Dir, "init", "--quiet", "--initial-branch=main")
	poison(t, target.Dir, canary)
	trusting(t, target.Dir, "status")
	g.Expect(canary).To(BeAnExistingFile())
	g.Expect(os.Remove(canary)).To(Succeed())
	g.Expect(os.RemoveAll(filepath.Join(target.Dir, ".git"))).To(Succeed())
	git(t, target.Dir, "init", "--quiet", "--initial-branch=main")
	poison(t, target.Dir, thief)
	for key, value := range map[string]string{
		"remote.origin.url": url, "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
		"remote.origin.vcs": "", "remote.origin.proxy": "", "url.ext::touch " + thief + ".insteadof": "",
	} {
		if git(t, target.Dir, "config", "--replace-all", key, value); value == "" { // what would only be an error
			git(t, target.Dir, "config", "--unset", key)
		}
	}
	owned(t, target)
	return filepath.Dir(canary)
}

// An archive may bring a repository into whose directory another one is cloned. Its configuration is not in force there.
func TestS8_ARepositoryInAHostileOne(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	s.lock("s3cret")
	target := newTarget(t)
	canaries := surrounded(t, target, url)
	target.Begun = true
	spec := withSecret(url, "s3cret")
	spec.CheckoutLocation, spec.LocalBranch, spec.Submodules, spec.LFS = "web", "mine", true, true
	result, err := newGit(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(*result.Git).To(Equal(initializer.GitHead{Branch: "mine", Commit: s.id(t, "r", "main")}))
	g.Expect(read(t, target.Dir, "web/README")).To(Equal("two"))
	g.Expect(os.ReadDir(canaries)).To(BeEmpty())
}

// A prebuild whose repository is none, within one that is and names programs: git must not take that one.
func TestS8_ABrokenPrebuildInAHostileOne(t *testing.T) {
	for _, missing := range []string{"HEAD", "objects", "refs"} {
		t.Run(missing, func(t *testing.T) {
			g := NewWithT(t)
			target, s := prebuilt(t, "web")
			s.lock("s3cret")
			canaries := surrounded(t, target, s.URL+"/r.git")
			g.Expect(os.RemoveAll(filepath.Join(target.Dir, "web/.git", missing))).To(Succeed())
			spec := withSecret(s.URL+"/r.git", "s3cret")
			spec.CheckoutLocation, spec.LFS = "web", true
			_, err := newGit(t).Update(t.Context(), target, spec)
			g.Expect(os.ReadDir(canaries)).To(BeEmpty())
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring("not a git repository"))))
		})
	}
}

// More of what a prebuild may have in the place of git's files. What lies beside its repository is neither read nor written.
func TestS6_PrebuildsThatLeadElsewhere(t *testing.T) {
	const special = "the repository of the prebuild has a link or a pipe at "
	for name, tt := range map[string]struct {
		make func(g *WithT, web string)
		want string // of the error; "" if the update goes on
	}{
		"modules":          {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/modules") }, ""},
		"hooks":            {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/hooks") }, ""},
		"worktrees":        {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/worktrees") }, ""},
		"common":           {func(_ *WithT, web string) { write(t, web, ".git/commondir", "../../outside\n") }, ""},
		"objects":          {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/objects") }, special + `".git/objects"`},
		"refs":             {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/refs") }, special + `".git/refs"`},
		"info":             {func(g *WithT, web string) { link(g, "../../outside", web+"/.git/info") }, special + `".git/info"`},
		"HEAD":             {func(g *WithT, web string) { link(g, "../../outside/secret", web+"/.git/HEAD") }, special + `".git/HEAD"`},
		"index":            {func(g *WithT, web string) { link(g, "../../outside/secret", web+"/.git/index") }, special + `".git/index"`},
		"a pipe":           {func(g *WithT, web string) { pipe(g, web+"/.git/index") }, special + `".git/index"`},
		"packed refs":      {func(g *WithT, web string) { pipe(g, web+"/.git/packed-refs") }, special + `".git/packed-refs"`},
		"a ref":            {func(g *WithT, web string) { pipe(g, web+"/.git/refs/heads/x") }, special + `".git/refs/heads/x"`},
		"attributes":       {func(g *WithT, web string) { pipe(g, web+"/bin/.gitattributes") }, special + `"bin/.gitattributes"`},
		"ignored":          {func(g *WithT, web string) { pipe(g, web+"/build/.gitignore") }, special + `"build/.gitignore"`},
		"a pipe of theirs": {func(g *WithT, web string) { pipe(g, web+"/build/pipe") }, ""},
		"a work tree elsewhere": {func(_ *WithT, web string) {
			write(t, web, ".git/config", read(t, web, ".git/config")+"[core]\n\tworktree = ../../outside\n")
		}, ""},
		"a promisor elsewhere": {func(_ *WithT, web string) {
			write(t, web, ".git/config", read(t, web, ".git/config")+"[extensions]\n\tpartialclone = ../outside\n")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target, s := prebuilt(t, "web")
			write(t, target.Dir, "outside/secret", "ref: refs/heads/main\n")
			tt.make(g, filepath.Join(target.Dir, "web"))
			owned(t, target)
			before := listing(t, filepath.Join(target.Dir, "outside"))
			_, err := newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git", CheckoutLocation: "web"})
			g.Expect(listing(t, filepath.Join(target.Dir, "outside"))).To(Equal(before))
			if tt.want != "" {
				g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(tt.want)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read(t, target.Dir, "web/README")).To(Equal("three"))
		})
	}
}

// Objects that a prebuild lacks are asked of nobody but the repository's own server, whoever the prebuild says has promised them.
func TestS6_LazyObjectsComeFromTheRepositoryAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		config func(other, home string) string
		fails  bool
	}{
		"a remote without a name": {func(other, _ string) string { return "[extensions]\n\tpartialclone = " + other + "/r.git\n" }, true},
		"another remote": {func(other, _ string) string {
			return "[extensions]\n\tpartialclone = other\n[remote \"other\"]\n\turl = " + other + "/r.git\n\tpromisor = true\n"
		}, true},
		"the remote elsewhere": {func(other, home string) string {
			return "[extensions]\n\tpartialclone = origin\n[remote \"origin\"]\n\turl = " + other + "/r.git\n\tpromisor = true\n\tpartialclonefilter = blob:none\n" +
				"[url \"" + other + "\"]\n\tinsteadOf = " + home + "\n"
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s, other := newServer(t), newServer(t)
			for _, server := range []*server{s, other} {
				server.repo(t, "r")
				git(t, filepath.Join(server.root, "r.git"), "config", "uploadpack.allowFilter", "true")
			}
			target := newTarget(t)
			target.Begun = true
			git(t, target.Dir, "clone", "--quiet", "--filter=blob:none", "--no-checkout", s.URL+"/r.git", "web")
			write(t, target.Dir, "web/.git/config", "[core]\n\trepositoryformatversion = 1\n"+tt.config(other.URL, s.URL))
			owned(t, target)
			_, err := newGit(t).Update(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git", CheckoutLocation: "web"})
			g.Expect(other.authorizations()).To(BeEmpty(), "no request")
			if tt.fails {
				g.Expect(err).To(MatchError(initializer.ErrFailed))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read(t, target.Dir, "web/README")).To(Equal("two"))
		})
	}
}

// A server may say that a part of its repository lies elsewhere. Nobody goes there.
func TestS6_PartsElsewhereAreNotFetched(t *testing.T) {
	g := NewWithT(t)
	s, other := newServer(t), newServer(t)
	url := s.repo(t, "r")
	bare := filepath.Join(s.root, "r.git")
	for key, value := range map[string]string{
		"uploadpack.advertiseBundleURIs": "true", "bundle.version": "1", "bundle.mode": "all", "bundle.a.uri": other.URL + "/a.bundle",
		"uploadpack.blobPackfileUri": s.id(t, "r", "main:README") + " " + strings.Repeat("a", 40) + " " + other.URL + "/a.pack",
		"uploadpack.allowFilter":     "true", "promisor.advertise": "true", "remote.other.url": other.URL + "/r.git", "remote.other.promisor": "true",
	} {
		git(t, bare, "config", key, value)
	}
	for _, filter := range []string{"", "blob:none"} {
		target := newTarget(t)
		_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url, Filter: filter})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(read(t, target.Dir, "README")).To(Equal("two"))
	}
	g.Expect(other.authorizations()).To(BeEmpty(), "no request")
}

// Names that some file systems take for one are two here, and those that some take for .git are refused.
func TestS6_NamesThatDifferByCase(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	blob := func(r, text string) string { return object(t, r, "blob", []byte(text)) }
	url := s.hostile(t, "case", func(r string) string {
		inner := rawTree(t, r, treeEntry{"100644", "f", blob(r, "below")})
		return rawTree(t, r, treeEntry{"120000", "A", blob(r, ".git")}, treeEntry{"40000", "a", inner},
			treeEntry{"100644", "\u00e4", blob(r, "composed")}, treeEntry{"100644", "\u00c4", blob(r, "capital")})
	})
	_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
	g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring("treeNotSorted"))), "trees are sorted by bytes")

	target := newTarget(t)
	_, err = newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.hostile(t, "sorted", func(r string) string {
		inner := rawTree(t, r, treeEntry{"100644", "f", blob(r, "below")})
		return rawTree(t, r, treeEntry{"120000", "A", blob(r, ".git")}, treeEntry{"40000", "a", inner},
			treeEntry{"100644", "\u00c4", blob(r, "capital")}, treeEntry{"100644", "\u00e4", blob(r, "composed")})
	})})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, target.Dir, "a/f") + read(t, target.Dir, "\u00c4") + read(t, target.Dir, "\u00e4")).To(Equal("belowcapitalcomposed"))
	g.Expect(filepath.Join(target.Dir, ".git/f")).NotTo(BeAnExistingFile())

	for i, name := range []string{".g\u200cit", ".GI\u200dT", "git~1", ".git ", ".git.", ".git::$INDEX_ALLOCATION"} {
		url := s.hostile(t, fmt.Sprintf("dot-%d", i), func(r string) string { return rawTree(t, r, treeEntry{"40000", name, hooks(t, r, "#!/bin/sh\n")}) })
		_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
		g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(Or(ContainSubstring("hasDotgit"), ContainSubstring("invalid path")))), "%q", name)
	}
}

// A repository whose submodule is an older commit of itself, and so on, and one with more submodules than anybody has.
func TestS6_SubmodulesWithoutAnEnd(t *testing.T) {
	s := newServer(t)
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, ".gitmodules", "[submodule \"again\"]\n\tpath = again\n\turl = ../spiral.git\n")
	commit(t, work, "m")
	for range 10 {
		git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+git(t, work, "rev-parse", "HEAD")+",again")
		git(t, work, "commit", "--quiet", "--message", "m")
	}
	git(t, s.root, "clone", "--quiet", "--bare", work, "spiral.git")
	s.repo(t, "leaf")
	id := s.id(t, "leaf", "main")
	var text strings.Builder
	links := map[string]string{}
	for i := range 257 {
		fmt.Fprintf(&text, "[submodule \"%d\"]\n\tpath = s%d\n\turl = ../leaf.git\n", i, i)
		links[fmt.Sprintf("s%d", i)] = id
	}
	for url, want := range map[string]string{
		s.URL + "/spiral.git":                    "submodules are nested more than 8 levels deep in ./again/again/again/again/again/again/again/again",
		s.super(t, "many", text.String(), links): "there are more than 256 submodules",
	} {
		g := NewWithT(t)
		_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url, Submodules: true})
		g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(want)))
	}
}

// Where a repository says that its large files are, goes no credential but that server's own, and a server that wants one is a reason
// that no other attempt makes go away.
func TestS8_LFSElsewhereGetsNoCredentials(t *testing.T) {
	mallory := "Basic " + base64.StdEncoding.EncodeToString([]byte("mallory:")) // whom the repository names itself
	for name, tt := range map[string]struct {
		config func(evil, home string) string
		asked  bool
	}{
		"by configuration": {func(evil, _ string) string { return "[lfs]\n\turl = " + evil + "/r.git/info/lfs\n" }, true},
		"by a name in the URL": {func(evil, _ string) string {
			return "[lfs]\n\turl = " + strings.Replace(evil, "://", "://mallory@", 1) + "/r.git/info/lfs\n"
		}, true},
		"by access that is known": {func(evil, _ string) string {
			return "[lfs]\n\turl = " + evil + "/r.git/info/lfs\n[lfs \"" + evil + "/r.git/info/lfs\"]\n\taccess = basic\n"
		}, false},
		"by a redirect": {func(_, home string) string { return "[lfs]\n\turl = " + home + "/away\n" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			evil := newServer(t)
			evil.repo(t, "r")
			evil.lock("other")
			s := newServer(t)
			away := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if rest, ok := strings.CutPrefix(r.URL.Path, "/away"); ok {
					http.Redirect(w, r, away+"/r.git/info/lfs"+rest, http.StatusTemporaryRedirect)
					return
				}
				s.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			s.lfsRepository(t, "r", tt.config(away, front.URL))
			s.lock("s3cret")
			spec := withSecret(front.URL+"/r.git", "s3cret")
			spec.LFS = true
			_, err := newGit(t).Run(t.Context(), newTarget(t), spec)
			g.Expect(len(evil.authorizations()) > 0).To(Equal(tt.asked))
			for _, shown := range evil.authorizations() {
				g.Expect(shown).To(BeElementOf("", mallory))
			}
			g.Expect(err).To(MatchError(initializer.ErrUnauthorized))
			g.Expect(err.Error()).NotTo(ContainSubstring("s3cret"))
		})
	}
}

// The server of large files says where each of them is, which may be anywhere.
func TestS6_LFSObjectsElsewhere(t *testing.T) {
	for name, tt := range map[string]struct {
		href string
		is   error
		want string
	}{
		"metadata":  {"http://169.254.169.254/latest", initializer.ErrInvalid, "the daemon's configuration denies the address 169.254.169.254"},
		"a file":    {"file:///etc/passwd", initializer.ErrFailed, ""},
		"a command": {"ext::sh -c touch% ran", initializer.ErrFailed, ""},
		"a socket":  {"unix:///var/run/docker.sock", initializer.ErrFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newServer(t)
			s.lfsRepository(t, "r", "")
			sum := sha256.Sum256([]byte(lfsContent))
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if !strings.HasSuffix(q.URL.Path, "/objects/batch") {
					s.ServeHTTP(w, q)
					return
				}
				w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
				_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": []any{map[string]any{
					"oid": hex.EncodeToString(sum[:]), "size": len(lfsContent), "authenticated": true, "actions": map[string]any{"download": map[string]any{"href": tt.href}},
				}}})
			}))
			t.Cleanup(front.Close)
			target := newTarget(t)
			_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: front.URL + "/r.git", LFS: true})
			g.Expect(err).To(And(MatchError(tt.is), MatchError(HavePrefix("git lfs: "+tt.want))))
			g.Expect(filepath.Join(target.Dir, "ran")).NotTo(BeAnExistingFile())
		})
	}
}

// What does not fit is a reason of its own also where git-lfs says so.
func TestLFSOntoAFullVolume(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.lfsRepositoryOf(t, "r", "", strings.Repeat("0123456789abcdef", 1<<18))
	_, err := newGit(t).Run(t.Context(), mounted(t, "size=2m"), initializer.GitSpec{URL: url, LFS: true})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring("no space left on device"))))
}

// A server that talks, and never comes to its version or to its key, is left when it has had its time.
func TestS7_AnSSHServerThatOnlyTalks(t *testing.T) {
	web := newServer(t)
	web.repo(t, "r")
	s, key := newSSHServer(t, web.root)
	for name, words := range map[string]string{"before its version": "hello\r\n", "after its version": "SSH-2.0-x\r\n", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			g.Expect(err).NotTo(HaveOccurred())
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				for tick := time.Tick(50 * time.Millisecond); err == nil; <-tick {
					_, err = io.WriteString(conn, words)
					if words == "" || strings.HasPrefix(words, "SSH") {
						_, _ = io.Copy(io.Discard, conn) // until the client hangs up
						return
					}
				}
			}()
			git := sshGit(t)
			git.Stall = 2 * time.Second
			hosts := strings.Replace(s.knownHosts(), s.address[strings.LastIndexByte(s.address, ':')+1:], l.Addr().String()[strings.LastIndexByte(l.Addr().String(), ':')+1:], 1)
			_, err = git.Run(t.Context(), newTarget(t), initializer.GitSpec{
				URL: "ssh://" + l.Addr().String() + "/r.git", Credentials: &initializer.Credentials{Key: key, KnownHosts: hosts},
			})
			g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring("error: ssh: the server does not come to the point"))))
		})
	}
}

// Attributes of a size that nobody writes are refused by what looks at what comes.
func TestS6_HugeAttributes(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.hostile(t, "huge", func(r string) string {
		return rawTree(t, r, treeEntry{"100644", ".gitattributes", object(t, r, "blob", bytes.Repeat([]byte("* text\n"), 15<<20))})
	})
	_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
	g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring("gitattributesLarge"))))
}

// line is one of git's protocol.
func line(data string) string { return fmt.Sprintf("%04x%s", len(data)+4, data) }

// packedObject is an object of a pack, whose size may be a lie.
func packedObject(t *testing.T, kind byte, size uint64, before, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	first, size := kind<<4|byte(size&15), size>>4
	for ; size > 0; size >>= 7 {
		b.WriteByte(first | 0x80)
		first = byte(size & 0x7f)
	}
	b.WriteByte(first)
	b.Write(before)
	z := zlib.NewWriter(&b)
	_, err := z.Write(data)
	NewWithT(t).Expect(errors.Join(err, z.Close())).To(Succeed())
	return b.Bytes()
}

// varint is a size in a delta.
func varint(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// A pack of a few kilobytes whose deltas make objects of many gigabytes, and others that are not what they say.
func TestS6_PacksThatLie(t *testing.T) {
	const blob, refDelta = 3, 7
	base := make([]byte, 1<<20)
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(base)), base...))
	copyAll := []byte{0x80 | 0x40, 0x10} // 1 MiB from the beginning of the base
	bomb := append(append(varint(1<<20), varint(16<<30)...), bytes.Repeat(copyAll, 16<<10)...)
	short := append(append(varint(1<<20), varint(4<<30)...), copyAll...)
	ended := []error{initializer.ErrInvalid, initializer.ErrFailed}
	for name, tt := range map[string]struct {
		objects [][]byte
		count   uint32
		is      []error // one of them: where a delta ends depends on how much memory git is given before it writes there
	}{
		"a delta of 16 GB":         {[][]byte{packedObject(t, blob, 1<<20, nil, base), packedObject(t, refDelta, uint64(len(bomb)), sum[:], bomb)}, 2, ended},
		"a delta that is shorter":  {[][]byte{packedObject(t, blob, 1<<20, nil, base), packedObject(t, refDelta, uint64(len(short)), sum[:], short)}, 2, ended},
		"a blob of 1 TB":           {[][]byte{packedObject(t, blob, 1<<40, nil, base)}, 1, []error{initializer.ErrFailed}},
		"a commit of 1 TB":         {[][]byte{packedObject(t, 1, 1<<40, nil, base)}, 1, []error{initializer.ErrInvalid}},
		"4 billion objects":        {[][]byte{packedObject(t, blob, 1<<20, nil, base)}, 1<<32 - 1, []error{initializer.ErrFailed}},
		"a base that is not there": {[][]byte{packedObject(t, refDelta, uint64(len(short)), bytes.Repeat([]byte{1}, 20), short)}, 1, []error{initializer.ErrFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newServer(t)
			s.repo(t, "r")
			var pack bytes.Buffer
			pack.WriteString("PACK")
			pack.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 2), tt.count))
			for _, o := range tt.objects {
				pack.Write(o)
			}
			check := sha1.Sum(pack.Bytes())
			pack.Write(check[:])
			url := badServer(t, s, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost {
					return false
				}
				body, _ := io.ReadAll(r.Body)
				if !bytes.Contains(body, []byte("command=fetch")) {
					r.Body = io.NopCloser(bytes.NewReader(body))
					return false
				}
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				_, _ = io.WriteString(w, line("packfile\n"))
				for part := pack.Bytes(); len(part) > 0; part = part[min(len(part), 60000):] {
					_, _ = io.WriteString(w, line("\x01"+string(part[:min(len(part), 60000)])))
				}
				_, _ = io.WriteString(w, "0000")
				return true
			})
			_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: url})
			g.Expect(err).To(MatchError(MatchRegexp("^(git clone|clone http.*): ")))
			g.Expect(slices.ContainsFunc(tt.is, func(kind error) bool { return errors.Is(err, kind) })).To(BeTrue(), "%v", err)
		})
	}
}
