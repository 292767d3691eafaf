//go:build vm

package quota

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestLinksAndRenamesDoNotCrossVolumes(t *testing.T) {
	for _, user := range []who{anOwner(), namespaceRoot(), containerRoot(), nodeRoot()} {
		t.Run(user.name, func(t *testing.T) {
			g := NewWithT(t)
			d, _ := newDriver(t)
			a := published(t, d, volume.Spec{ID: "a", Size: 1 << 20}, user.uid)
			b := published(t, d, volume.Spec{ID: "b", Size: 1 << 20}, user.uid)
			file := filepath.Join(a.Path, "mine")
			g.Expect(os.WriteFile(file, []byte("x"), 0o600)).To(Succeed())
			g.Expect(os.Chown(file, user.uid, user.uid)).To(Succeed())
			for _, action := range []string{"link", "rename"} {
				g.Expect(user.do(t, action, file, filepath.Join(b.Path, "x"))).To(HaveSuffix(unix.EXDEV.Error()), action)
			}
			g.Expect(user.do(t, "link", file, filepath.Join(a.Path, "x"))).To(Equal("<nil>"))
			g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
		})
	}
}

func TestChangedProjectIsImpossibleOrFound(t *testing.T) {
	for _, test := range []struct {
		user  who
		fails string
	}{
		{anOwner(), "<nil>"},
		{namespaceRoot(), unix.EINVAL.Error()},
		{containerRoot(), "<nil>"},
	} {
		for _, what := range []string{"large", "dir", ""} {
			t.Run(test.user.name+"/"+what, func(t *testing.T) { testEscape(t, test.user, test.fails, what) })
		}
	}
}

// testEscape lets somebody put a file, a directory, or the top directory into no project at all, and fill it.
func testEscape(t *testing.T, user who, fails, what string) {
	t.Helper()
	g := NewWithT(t)
	d, _ := newDriver(t)
	a := published(t, d, volume.Spec{ID: "a", Size: 1 << 20}, user.uid)
	g.Expect(os.Mkdir(filepath.Join(a.Path, "dir"), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(a.Path, "large"), []byte("x"), 0o600)).To(Succeed())
	for _, name := range []string{"dir", "large"} {
		g.Expect(os.Chown(filepath.Join(a.Path, name), user.uid, user.uid)).To(Succeed())
	}
	target := filepath.Join(a.Path, what)
	g.Expect(user.do(t, "escape", target, "0")).To(Equal(fails))
	file := target
	if what != "large" {
		file = filepath.Join(target, "new")
	}
	said := user.do(t, "fill", file)
	if fails != "<nil>" {
		g.Expect(said).To(HavePrefix(stopped(t)))
		g.Expect(d.Audit(t.Context(), "a", nil)).To(Succeed())
		return
	}
	g.Expect(said).To(Equal("<nil>"), "it has escaped")
	err := d.Audit(t.Context(), "a", nil)
	escaped := &volume.EscapedError{}
	g.Expect(errors.As(err, &escaped)).To(BeTrue(), "%v", err)
	g.Expect(escaped.ID).To(Equal("a"))
	g.Expect(escaped.Reason).To(ContainSubstring(strconv.Quote(filepath.Clean(target)) + " has project id 0"))
	if what == "" {
		g.Expect(d.Get(t.Context(), "a")).To(HaveField("Limited", false))
		g.Expect(d.Ensure(t.Context(), volume.Spec{ID: "a"})).Error().To(MatchError(ContainSubstring("escaped")))
	}
}

// A user can also load his files on a neighbour: his own volume tells.
func TestFilesInANeighboursProjectAreFound(t *testing.T) {
	g := NewWithT(t)
	d, root := newDriver(t)
	a := published(t, d, volume.Spec{ID: "a", Size: 4 << 20}, owner)
	published(t, d, volume.Spec{ID: "b", Size: 4 << 20}, owner)
	file := filepath.Join(a.Path, "large")
	g.Expect(anOwner().do(t, "fill", file)).To(HavePrefix(stopped(t)))
	g.Expect(os.Truncate(file, 1<<20)).To(Succeed())
	theirs := projectIn(g, filepath.Join(root, "b"))
	g.Expect(anOwner().do(t, "escape", file, strconv.Itoa(int(theirs)))).To(Equal("<nil>"))
	g.Expect(d.Audit(t.Context(), "a", nil)).To(MatchError(ContainSubstring(strconv.Itoa(int(theirs)))))
	g.Expect(d.Audit(t.Context(), "b", nil)).To(Succeed())
}
