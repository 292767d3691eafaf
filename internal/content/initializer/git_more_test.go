package initializer_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

func sshGit(t *testing.T) initializer.Git {
	t.Helper()
	git := newGit(t)
	git.AllowedSchemes = []string{"ssh", "http"}
	return git
}

func TestGitOverSSH(t *testing.T) {
	g := NewWithT(t)
	web := newServer(t)
	web.repo(t, "r")
	s, key := newSSHServer(t, web.root)
	target := newTarget(t)
	spec := initializer.GitSpec{
		URL: "ssh://git@" + s.address + "/r.git", Branch: "feature/x", Credentials: &initializer.Credentials{Key: key, KnownHosts: s.knownHosts()},
	}
	result, err := sshGit(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Git.Branch).To(Equal("feature/x"))
	g.Expect(read(t, target.Dir, "FEATURE")).To(Equal("x"))
	g.Expect(s.seen).To(Equal([]string{"git-upload-pack '/r.git'"}))
	expectOwner(t, target)
	out, _ := exec.CommandContext(t.Context(), "grep", "-rla", "PRIVATE KEY", target.Dir).CombinedOutput()
	g.Expect(string(out)).To(BeEmpty())
}

func TestGitOverSSHErrors(t *testing.T) {
	web := newServer(t)
	web.repo(t, "r")
	s, key := newSSHServer(t, web.root)
	other, otherKey := newSSHServer(t, web.root)
	wrongHost := strings.Replace(other.knownHosts(), other.address[strings.LastIndexByte(other.address, ':')+1:], s.address[strings.LastIndexByte(s.address, ':')+1:], 1)
	for name, tt := range map[string]struct {
		url  string
		key  *initializer.Credentials
		is   error
		want string
	}{
		"another key":    {"/r.git", &initializer.Credentials{Key: otherKey, KnownHosts: s.knownHosts()}, initializer.ErrUnauthorized, "unable to authenticate"},
		"no key":         {"/r.git", nil, initializer.ErrUnauthorized, "needs a secret with a private key and known_hosts"},
		"no hosts":       {"/r.git", &initializer.Credentials{Key: key}, initializer.ErrUnauthorized, "needs a secret with a private key and known_hosts"},
		"damaged key":    {"/r.git", &initializer.Credentials{Key: "nonsense", KnownHosts: s.knownHosts()}, initializer.ErrUnauthorized, "must have no passphrase"},
		"damaged hosts":  {"/r.git", &initializer.Credentials{Key: key, KnownHosts: "nonsense\n"}, initializer.ErrUnauthorized, "known_hosts of the Secret cannot be parsed"},
		"unknown host":   {"/r.git", &initializer.Credentials{Key: key, KnownHosts: other.knownHosts()}, initializer.ErrUnauthorized, "the host is not in known_hosts"},
		"changed host":   {"/r.git", &initializer.Credentials{Key: key, KnownHosts: wrongHost}, initializer.ErrUnauthorized, "the host has another key"},
		"no repository":  {"/none.git", &initializer.Credentials{Key: key, KnownHosts: s.knownHosts()}, initializer.ErrNotFound, "does not appear to be a git repository"},
		"missing branch": {"/r.git", &initializer.Credentials{Key: key, KnownHosts: s.knownHosts()}, initializer.ErrNotFound, "Remote branch nope not found"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := initializer.GitSpec{URL: "ssh://" + s.address + tt.url, Credentials: tt.key}
			if name == "missing branch" {
				spec.Branch = "nope"
			}
			_, err := sshGit(t).Run(t.Context(), newTarget(t), spec)
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
			for line := range strings.Lines(key) {
				g.Expect(err.Error()).NotTo(ContainSubstring(strings.TrimSpace(line)))
			}
		})
	}
}

func TestS8_BearerTokenStaysWithItsHost(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.repo(t, "r")
	s.bearer("t0ken \"quoted\"")
	spec := initializer.GitSpec{URL: url, Credentials: &initializer.Credentials{Bearer: "t0ken \"quoted\""}}
	target := newTarget(t)
	_, err := newGit(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	out, _ := exec.CommandContext(t.Context(), "grep", "-rla", "t0ken", target.Dir).CombinedOutput()
	g.Expect(string(out)).To(BeEmpty())

	spec.Credentials = &initializer.Credentials{Bearer: "wrong"}
	_, err = newGit(t).Run(t.Context(), newTarget(t), spec)
	g.Expect(err).To(MatchError(initializer.ErrUnauthorized))

	evil := newServer(t)
	evil.repo(t, "r")
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)+r.URL.RequestURI(), http.StatusFound)
	}))
	t.Cleanup(front.Close)
	_, err = newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: front.URL + "/r.git", Credentials: &initializer.Credentials{Bearer: "t0ken"}})
	g.Expect(err).To(MatchError(ContainSubstring("302")))
	g.Expect(evil.authorizations()).To(BeEmpty())
}

func TestGitExtent(t *testing.T) {
	s := newServer(t)
	url := s.repo(t, "r")
	one := s.id(t, "r", "v1")
	git(t, filepath.Join(s.root, "r.git"), "config", "uploadpack.allowFilter", "true")
	for name, tt := range map[string]struct {
		spec  initializer.GitSpec
		files string
		count int64
		more  func(g *WithT, dir string)
	}{
		"depth": {initializer.GitSpec{Depth: 1}, "README bin/run link", 3, func(g *WithT, dir string) {
			g.Expect(git(t, dir, "rev-list", "--count", "HEAD")).To(Equal("1"))
			g.Expect(git(t, dir, "config", "remote.origin.fetch")).To(Equal("+refs/heads/*:refs/remotes/origin/*"))
		}},
		"depth and branch": {initializer.GitSpec{Depth: 1, Branch: "feature/x"}, "FEATURE README bin/run link", 4, nil},
		"depth and commit": {initializer.GitSpec{Depth: 1, Commit: one}, "README bin/run link", 3, func(g *WithT, dir string) {
			g.Expect(git(t, dir, "rev-parse", "HEAD")).To(Equal(one))
		}},
		"filter": {initializer.GitSpec{Filter: "blob:none"}, "README bin/run link", 3, func(g *WithT, dir string) {
			g.Expect(git(t, dir, "config", "remote.origin.partialclonefilter")).To(Equal("blob:none"))
			g.Expect(git(t, dir, "rev-list", "--objects", "--all", "--missing=print")).To(ContainSubstring("\n?"), "README of the first commit is not here")
		}},
		"sparse": {initializer.GitSpec{Sparse: []string{"docs"}}, "README link", 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			tt.spec.URL = url
			result, err := newGit(t).Run(t.Context(), target, tt.spec)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(files(t, target.Dir)).To(Equal(tt.files))
			g.Expect(result.Files).To(Equal(tt.count))
			g.Expect(git(t, target.Dir, "status", "--porcelain")).To(BeEmpty())
			if tt.more != nil {
				tt.more(g, target.Dir)
			}
			expectOwner(t, target)
		})
	}
}

// files lists a working copy without .git.
func files(t *testing.T, dir string) string {
	t.Helper()
	var found []string
	NewWithT(t).Expect(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git" && d.IsDir():
			return filepath.SkipDir
		case !d.IsDir():
			rel, err := filepath.Rel(dir, path)
			found = append(found, rel)
			return err
		}
		return nil
	})).To(Succeed())
	return strings.Join(found, " ")
}

// super makes a repository whose submodules are what .gitmodules says, at the paths that links has.
func (s *server) super(t *testing.T, name, gitmodules string, links map[string]string) string {
	t.Helper()
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, ".gitmodules", gitmodules)
	git(t, work, "add", ".gitmodules")
	for path, id := range links {
		git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+id+","+path)
	}
	git(t, work, "commit", "--quiet", "--message", "m")
	git(t, s.root, "clone", "--quiet", "--bare", work, name+".git")
	return s.URL + "/" + name + ".git"
}

func TestGitSubmodules(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	s.repo(t, "leaf")
	middle := s.super(t, "middle", "[submodule \"l\"]\n\tpath = deep/leaf\n\turl = ../leaf.git\n", map[string]string{"deep/leaf": s.id(t, "leaf", "v1")})
	url := s.super(t, "top", "[submodule \"m\"]\n\tpath = m\n\turl = "+middle+"\n", map[string]string{"m": s.id(t, "middle", "main")})
	s.lock("s3cret")
	target := newTarget(t)
	spec := withSecret(url, "s3cret")
	spec.Submodules = true
	result, err := newGit(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files(t, target.Dir)).To(Equal(".gitmodules m/.git m/.gitmodules m/deep/leaf/.git m/deep/leaf/README m/deep/leaf/bin/run m/deep/leaf/link"))
	g.Expect(read(t, target.Dir, "m/deep/leaf/README")).To(Equal("one"))
	g.Expect(git(t, target.Dir, "status", "--porcelain")).To(BeEmpty())
	g.Expect(result.Files).To(Equal(int64(5)))
	expectOwner(t, target)
	out, _ := exec.CommandContext(t.Context(), "grep", "-rla", "s3cret", target.Dir).CombinedOutput()
	g.Expect(string(out)).To(BeEmpty())
}

func TestS6_HostileSubmodules(t *testing.T) {
	s := newServer(t)
	s.repo(t, "leaf")
	id := s.id(t, "leaf", "main")
	ok := s.URL + "/leaf.git"
	for name, tt := range map[string]struct{ gitmodules, link, want string }{
		"ext":            {"[submodule \"a\"]\n\tpath = a\n\turl = \"ext::sh -c touch% ran\"\n", "a", "has characters that are not allowed"},
		"file":           {"[submodule \"a\"]\n\tpath = a\n\turl = file:///etc\n", "a", `URL scheme "file" is not allowed`},
		"path":           {"[submodule \"a\"]\n\tpath = a\n\turl = /etc\n", "a", `URL scheme "" is not allowed`},
		"option":         {"[submodule \"a\"]\n\tpath = a\n\turl = --upload-pack=touch\n", "a", "has no path or URL"},
		"credentials":    {"[submodule \"a\"]\n\tpath = a\n\turl = http://me:pw@example.com/\n", "a", "has a user name or password"},
		"newline":        {"[submodule \"a\"]\n\tpath = a\n\turl = \"http://example.com/%0a\\nhost=evil\"\n", "a", "control characters"},
		"path up":        {"[submodule \"a\"]\n\tpath = ../a\n\turl = " + ok + "\n", "a", "is not a plain relative path"},
		"carriage":       {"[submodule \"a\"]\n\tpath = \"a\r\"\n\turl = " + ok + "\n", "a", "control characters"},
		"git directory":  {"[submodule \"a\"]\n\tpath = .git/a\n\turl = " + ok + "\n", "a", "is not a plain relative path"},
		"command":        {"[submodule \"a\"]\n\tpath = a\n\turl = " + ok + "\n\tupdate = !touch ran\n", "a", "gitmodulesUpdate"},
		"option as path": {"[submodule \"a\"]\n\tpath = -a\n\turl = " + ok + "\n", "a", "is not a plain relative path"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			url := s.super(t, strings.ReplaceAll(name, " ", "-"), tt.gitmodules, map[string]string{tt.link: id})
			target := newTarget(t)
			_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: url, Submodules: true})
			// Git itself refuses some of it, when it looks at what it has received.
			g.Expect(err).To(And(MatchError(Or(ContainSubstring(tt.want), ContainSubstring("fsck error"))), MatchError(initializer.ErrInvalid)))
			g.Expect(filepath.Join(target.Dir, "ran")).NotTo(BeAnExistingFile())
			g.Expect(filepath.Join(target.Dir, ".git/modules")).NotTo(BeADirectory())
		})
	}
}

const lfsContent = "large"

// lfsRepository makes a repository with one file in LFS, whose content the server has, and with what .lfsconfig says.
func (s *server) lfsRepository(t *testing.T, name, lfsconfig string) string {
	t.Helper()
	return s.lfsRepositoryOf(t, name, lfsconfig, lfsContent)
}

// lfsRepositoryOf makes one of some content.
func (s *server) lfsRepositoryOf(t *testing.T, name, lfsconfig, content string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(content))
	oid := hex.EncodeToString(sum[:])
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
	write(t, work, "a.bin", fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content)))
	if lfsconfig != "" {
		write(t, work, ".lfsconfig", lfsconfig)
	}
	commit(t, work, "m")
	git(t, s.root, "clone", "--quiet", "--bare", work, name+".git")
	s.lfs = map[string]string{oid: content}
	return s.URL + "/" + name + ".git"
}

func TestGitLFS(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	s.lfsRepository(t, "r", "")
	s.lock("s3cret")

	target := newTarget(t)
	spec := withSecret(s.URL+"/r.git", "s3cret")
	spec.LFS = true
	_, err := newGit(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, target.Dir, "a.bin")).To(Equal(lfsContent))
	expectOwner(t, target)
	g.Expect(git(t, target.Dir, "status", "--porcelain")).To(BeEmpty())

	s.lfs = nil
	_, err = newGit(t).Run(t.Context(), newTarget(t), spec)
	g.Expect(err).To(MatchError(ContainSubstring("git lfs: ")))
}

// serveLFS is the part of the protocol that a download needs.
func (s *server) serveLFS(w http.ResponseWriter, r *http.Request) bool {
	if oid, ok := strings.CutPrefix(r.URL.Path, "/lfs-objects/"); ok {
		_, _ = w.Write([]byte(s.lfs[oid]))
		return true
	}
	if !strings.HasSuffix(r.URL.Path, "/info/lfs/objects/batch") {
		return false
	}
	var ask struct {
		Objects []struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		} `json:"objects"`
	}
	_ = json.NewDecoder(r.Body).Decode(&ask)
	objects := []any{}
	for _, o := range ask.Objects {
		if _, ok := s.lfs[o.OID]; !ok {
			objects = append(objects, map[string]any{"oid": o.OID, "size": o.Size, "error": map[string]any{"code": 404, "message": "gone"}})
			continue
		}
		objects = append(objects, map[string]any{"oid": o.OID, "size": o.Size, "authenticated": true, "actions": map[string]any{
			"download": map[string]any{"href": s.URL + "/lfs-objects/" + o.OID, "header": map[string]string{"Authorization": r.Header.Get("Authorization")}},
		}})
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": objects})
	return true
}
