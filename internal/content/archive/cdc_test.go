package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// splice replaces bytes of a file by others.
func splice(t *testing.T, path string, at, drop int, insert string) {
	t.Helper()
	g := NewWithT(t)
	b, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(path, []byte(string(b[:at])+insert+string(b[at+drop:])), 0o644)).To(Succeed())
}

// What is stored of a new version of a large file is not much more than what is new in it.
func TestLargeFileVersions(t *testing.T) {
	const mib = 1 << 20
	type edit struct {
		at, drop int
		insert   string
		stored   int // at most
	}
	for name, edits := range map[string][]edit{
		"inserted, then again":      {{9*mib + 77, 0, "some more", 4*mib + mib/2}, {9*mib + 77, 0, "and more", 2 * mib}, {5 * mib, 0, "x", 5 * mib}},
		"removed":                   {{13 * mib, 1000, "", 4*mib + mib/2}, {13*mib + 5, 1000, "", 3 * mib}},
		"overwritten":               {{9 * mib, 5, "other", 4*mib + mib/2}, {9*mib + 9, 5, "other", 2 * mib}},
		"appended":                  {{20 * mib, 0, "the end", 4*mib + mib/2}, {20*mib + 7, 0, "really", 2 * mib}},
		"inserted at the beginning": {{0, 0, "new", 4*mib + mib/2}, {0, 0, "newer", 2 * mib}},
		"cut off":                   {{17 * mib, 2 * mib, "", 2*mib + mib/2}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, `head -c 20M /dev/urandom >f; ln f g`)
			for i, e := range edits {
				splice(t, filepath.Join(b.dir, "f"), e.at, e.drop, e.insert)
				r := b.next(nil)
				g.Expect(r.Stored).To(BeNumerically("<", e.stored), fmt.Sprint(name, " ", i))
				b.calm()
				again := b.next(withoutIndex)
				g.Expect(again.Unchanged).To(BeTrue(), "cuts at other places are found again")
				g.Expect(again.Stored).To(BeZero())
			}
		})
	}
}
