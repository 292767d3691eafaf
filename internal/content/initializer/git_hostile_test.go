package initializer_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// treeEntry is one line of a tree that no honest git writes.
type treeEntry struct{ mode, name, id string }

// object writes an object of a bare repository as it is given.
func object(t *testing.T, repository, kind string, data []byte) string {
	t.Helper()
	g := NewWithT(t)
	whole := append(fmt.Appendf(nil, "%s %d\x00", kind, len(data)), data...)
	sum := sha1.Sum(whole)
	id := hex.EncodeToString(sum[:])
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, err := z.Write(whole)
	g.Expect(errors.Join(err, z.Close())).To(Succeed())
	write(t, repository, "objects/"+id[:2]+"/"+id[2:], packed.String())
	return id
}

func rawTree(t *testing.T, repository string, entries ...treeEntry) string {
	t.Helper()
	var data []byte
	for _, e := range entries {
		id, err := hex.DecodeString(e.id)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		data = append(append(data, e.mode+" "+e.name+"\x00"...), id...)
	}
	return object(t, repository, "tree", data)
}

// hostile makes a repository whose only commit has a tree that the function makes.
func (s *server) hostile(t *testing.T, name string, tree func(repository string) string) string {
	t.Helper()
	repository := filepath.Join(s.root, name+".git")
	git(t, s.root, "init", "--quiet", "--bare", "--initial-branch=main", name+".git")
	commit := "tree " + tree(repository) + "\nauthor a <a@example.com> 1 +0000\ncommitter a <a@example.com> 1 +0000\n\nm\n"
	git(t, repository, "update-ref", "refs/heads/main", object(t, repository, "commit", []byte(commit)))
	return s.URL + "/" + name + ".git"
}

func TestS6_HostileRepositories(t *testing.T) {
	s := newServer(t)
	outside := t.TempDir()
	g := NewWithT(t)
	g.Expect(os.Chmod(filepath.Dir(outside), 0o777)).To(Succeed())
	g.Expect(os.Chmod(outside, 0o777)).To(Succeed())
	write(t, outside, "secret", "s3cret")
	hook := "#!/bin/sh\ntouch " + outside + "/ran\ntouch /workspace/ran\n"
	for name, tt := range map[string]struct {
		tree func(repository string) string
		want string
	}{
		"dot-git":       {func(r string) string { return rawTree(t, r, treeEntry{"40000", ".git", hooks(t, r, hook)}) }, "hasDotgit"},
		"dot-git-upper": {func(r string) string { return rawTree(t, r, treeEntry{"40000", ".GIT", hooks(t, r, hook)}) }, "hasDotgit"},
		"dot-git-short": {func(r string) string { return rawTree(t, r, treeEntry{"40000", "GIT~1", hooks(t, r, hook)}) }, "hasDotgit"},
		"dot-git-link": {func(r string) string {
			return rawTree(t, r, treeEntry{"120000", ".git", object(t, r, "blob", []byte(outside))})
		}, "hasDotgit"},
		"dot-dot": {func(r string) string { return rawTree(t, r, treeEntry{"40000", "..", hooks(t, r, hook)}) }, "hasDotdot"},
		"slash": {func(r string) string {
			return rawTree(t, r, treeEntry{"100644", "../evil", object(t, r, "blob", []byte("x"))})
		}, "fullPathname"},
		"link-and-directory": {func(r string) string {
			evil := rawTree(t, r, treeEntry{"100644", "evil", object(t, r, "blob", []byte("x"))})
			return rawTree(t, r, treeEntry{"120000", "way", object(t, r, "blob", []byte(outside))}, treeEntry{"40000", "way", evil})
		}, "duplicateEntries"},
		"gitmodules-link": {func(r string) string {
			return rawTree(t, r, treeEntry{"120000", ".gitmodules", object(t, r, "blob", []byte(outside+"/secret"))})
		}, "gitmodulesSymlink"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			target := newTarget(t)
			_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.hostile(t, name, tt.tree), Submodules: true})
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring(tt.want))))
			g.Expect(os.ReadDir(outside)).To(HaveLen(1))
			g.Expect(filepath.Join(target.Dir, "ran")).NotTo(BeAnExistingFile())
		})
	}
}

// hooks is a tree that would be good for .git.
func hooks(t *testing.T, repository, script string) string {
	t.Helper()
	all := rawTree(t, repository, treeEntry{"100755", "post-checkout", object(t, repository, "blob", []byte(script))})
	return rawTree(t, repository, treeEntry{"40000", "hooks", all})
}

// Ten directories of ten each, nine levels deep, are a few kilobytes, and more files than there is room for.
func TestS6_ATreeOfABillionFiles(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	url := s.hostile(t, "bomb", func(r string) string {
		mode, id := "100644", object(t, r, "blob", []byte("x"))
		for range 9 {
			var entries []treeEntry
			for i := range 10 {
				entries = append(entries, treeEntry{mode, fmt.Sprintf("d%d", i), id})
			}
			slices.SortFunc(entries, func(a, b treeEntry) int { return strings.Compare(a.name, b.name) })
			mode, id = "40000", rawTree(t, r, entries...)
		}
		return id
	})
	_, err := newGit(t).Run(t.Context(), mounted(t, "size=64m,nr_inodes=20000"), initializer.GitSpec{URL: url})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring("that the volume has left"))))
}

func TestACheckoutThatDoesNotFitIsRefusedBeforeItBegins(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	work := t.TempDir()
	git(t, work, "init", "--quiet", "--initial-branch=main")
	write(t, work, "zeros", strings.Repeat("0", 8<<20)) // packs to next to nothing
	commit(t, work, "m")
	git(t, s.root, "clone", "--quiet", "--bare", work, "r.git")
	target := mounted(t, "size=4m")
	_, err := newGit(t).Run(t.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring("enlarge spec.volume.size"))))
	g.Expect(filepath.Join(target.Dir, "zeros")).NotTo(BeAnExistingFile())
}
