//go:build long

package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// A million files in one directory come back, and to find that one of them has changed takes no look into the others.
func TestMillionFilesInOneDirectory(t *testing.T) {
	g := NewWithT(t)
	b := &backups{t: t, dir: t.TempDir(), store: newPackStore()}
	const count = 1_000_000
	for i := range count {
		f, err := os.OpenFile(filepath.Join(b.dir, fmt.Sprintf("file-%07d", i)), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	b.calm()
	r := b.next(nil)
	g.Expect(r.Files).To(BeEquivalentTo(count))
	g.Expect(os.WriteFile(filepath.Join(b.dir, "file-0500000"), []byte("changed"), 0o600)).To(Succeed())
	b.calm()
	r = b.next(nil)
	g.Expect(r.BytesRead).To(BeEquivalentTo(len("changed")))
	g.Expect(r.Stored).To(BeNumerically("<", 100_000))
}
