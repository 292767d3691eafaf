//go:build vm

package lvm

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// What files had that were removed goes back to the pool.
func TestTrim(t *testing.T) {
	for _, fs := range Filesystems() {
		t.Run(fs, func(t *testing.T) {
			g := NewWithT(t)
			d := newDriver(t, newClass(t, fs))
			info := published(t, d, volume.Spec{ID: "a", Size: 400 * mebibyte})
			used := func() int64 {
				c, err := d.Capacity(t.Context())
				g.Expect(err).NotTo(HaveOccurred())
				return c.Size - c.Free
			}
			empty := used()
			file := filepath.Join(info.Path, "large")
			g.Expect(os.WriteFile(file, make([]byte, 100*mebibyte), 0o600)).To(Succeed())
			g.Expect(volume.Flush(t.Context(), info.Dir)).To(Succeed())
			g.Expect(used()).To(BeNumerically(">=", empty+95*mebibyte))
			g.Expect(os.Remove(file)).To(Succeed())
			g.Expect(volume.Flush(t.Context(), info.Dir)).To(Succeed())
			g.Expect(used()).To(BeNumerically(">=", empty+95*mebibyte), "nobody was told")
			g.Eventually(func() int64 { // XFS frees what was removed in the background
				g.Expect(d.Trim(t.Context())).To(Succeed())
				return used()
			}, "1m").Should(BeNumerically("<=", empty+20*mebibyte))
			g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
			g.Expect(d.Trim(t.Context())).To(Succeed())
		})
	}
}
