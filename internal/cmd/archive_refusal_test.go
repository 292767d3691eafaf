package cmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// everything names all that is below a directory, with its mode.
func everything(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	NewWithT(t).Expect(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Name() == ".tmp" { // what a store is writing
			return fs.SkipDir
		}
		info, err := e.Info()
		if err == nil {
			all = append(all, strings.TrimPrefix(path, dir)+" "+info.Mode().String())
		}
		return err
	})).To(Succeed())
	return all
}

// Bad input is refused in one line, and nothing has changed.
func TestArchiveRefusalsChangeNothing(t *testing.T) {
	dir, at, empty, base := someTree(t), newStoreURL(t), newStoreURL(t), t.TempDir()
	store := strings.TrimPrefix(at, "--store=file://")
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	g := NewWithT(t)
	g.Expect(os.Mkdir(filepath.Join(base, "there"), 0o751)).To(Succeed())
	in := func(name string) string { return filepath.Join(base, name) }
	for name, c := range map[string]struct {
		args []string
		err  string
	}{
		"create of nothing":         {[]string{"create", empty, inDomain, ofWeb, in("none")}, "no such file"},
		"create of a file":          {[]string{"create", empty, inDomain, ofWeb, filepath.Join(dir, "README")}, "not a directory"},
		"create from no snapshot":   {[]string{"create", empty, inDomain, ofWeb, "--snapshot-of=none", dir}, "there is no domain team"},
		"import of nothing":         {[]string{"import", empty, inDomain, ofWeb, in("none")}, "no such file"},
		"list of no workspace":      {[]string{"list", at, inDomain, "--workspace=other"}, "there is no workspace other"},
		"restore of no path":        {[]string{"restore", at, inDomain, ofWeb, "--path=none", in("new")}, "there is no none"},
		"restore of no path, there": {[]string{"restore", at, inDomain, ofWeb, "--path=none", in("there")}, "there is no none"},
		"restore without parent":    {[]string{"restore", at, inDomain, ofWeb, in("no/parent")}, "no such file"},
		"restore of no backup":      {[]string{"restore", at, inDomain, ofWeb, "--backup=9.9", in("new")}, "no backup 9.9"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			look := func() []string {
				return slices.Concat(everything(t, store), everything(t, strings.TrimPrefix(empty, "--store=file://")), everything(t, base))
			}
			before := look()
			message := refused(t, append([]string{"archive"}, c.args...)...)
			g.Expect(message).To(ContainSubstring(c.err))
			g.Expect(message).NotTo(ContainSubstring("\n"))
			g.Expect(look()).To(Equal(before))
		})
	}
}

// The index is a cache: where it cannot be kept, backup and restore succeed all the same.
func TestArchiveWithoutIndex(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	cache := filepath.Join(t.TempDir(), "file")
	g.Expect(os.WriteFile(cache, nil, 0o600)).To(Succeed())
	t.Setenv("XDG_CACHE_HOME", cache)
	g.Expect(report(t, "archive", "create", at, inDomain, ofWeb, dir).Backup).To(Equal("1.1"))
	must(t, "archive", "restore", at, inDomain, ofWeb, filepath.Join(t.TempDir(), "new"))
}
