package volume

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestEnsureRemovesWhatACrashLeftUnfinished(t *testing.T) {
	g := NewWithT(t)
	d, err := NewDirectory(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	info, err := d.Ensure(t.Context(), Spec{ID: "a", Size: 5, Inodes: 6})
	g.Expect(err).NotTo(HaveOccurred())
	meta := filepath.Join(info.Dir, metaDir)
	g.Expect(os.WriteFile(filepath.Join(meta, tempPrefix+"x"), []byte("{"), 0o600)).To(Succeed())
	g.Expect(d.Ensure(t.Context(), Spec{ID: "a"})).To(Equal(info))
	files, err := os.ReadDir(meta)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(HaveLen(1))

	data, err := os.ReadFile(filepath.Join(meta, descriptionOf))
	g.Expect(err).NotTo(HaveOccurred())
	var is description
	g.Expect(json.Unmarshal(data, &is)).To(Succeed())
	g.Expect(is).To(Equal(description{Size: 5, Inodes: 6}))
}

func TestShrinks(t *testing.T) {
	for _, test := range []struct {
		from, to int64
		want     bool
	}{
		{0, 0, false}, {0, 5, false}, {5, 0, false}, {5, 5, false}, {5, 6, false}, {6, 5, true},
	} {
		NewWithT(t).Expect(shrinks(test.from, test.to)).To(Equal(test.want), "%d to %d", test.from, test.to)
	}
}
