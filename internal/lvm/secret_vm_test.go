//go:build vm

package lvm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// What a volume and a template held is read from no later volume, not even by who reads its device: it gets most blocks of the pool, and
// so some of theirs.
func TestVolumesShowNothingOfThoseBefore(t *testing.T) {
	g := NewWithT(t)
	group, _ := newGroup(t, 460*mebibyte)
	d := newDriver(t, newClassOf(t, "ext4", group, "400m"))
	secret := []byte("nobody else shall ever read this")
	info := staged(t, d, volume.Spec{ID: "a", Size: 200 * mebibyte})
	file := filepath.Join(d.Path("a", volume.Staged), "secrets")
	g.Expect(os.WriteFile(file, bytes.Repeat(secret, 150*mebibyte/len(secret)), 0o600)).To(Succeed())
	g.Expect(volume.Flush(t.Context(), info.Dir)).To(Succeed())
	g.Expect(d.KeepTemplate(t.Context(), "a", template)).To(Succeed())
	g.Expect(d.Capacity(t.Context())).To(HaveField("Thin.Data", BeNumerically(">", 35)))
	g.Expect(d.Remove(t.Context(), "a")).To(Succeed())
	g.Expect(d.DropTemplate(t.Context(), template)).To(Succeed())

	later, err := d.Ensure(t.Context(), volume.Spec{ID: "b", Size: 380 * mebibyte})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.Unmount(later.Dir, 0)).To(Succeed())
	device, err := exclusive(d.devicePath(nameOf("b")), os.O_RDWR)
	g.Expect(err).NotTo(HaveOccurred())
	defer device.Close()
	const block = 32 << 10 // half of the pool's, or less
	for at := int64(0); at < 360*mebibyte; at += block {
		_, err := device.WriteAt(make([]byte, 4096), at)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(device.Sync()).To(Succeed())
	g.Expect(d.Capacity(t.Context())).To(HaveField("Thin.Data", BeNumerically(">", 85)), "it has blocks of its own nearly everywhere")
	data := make([]byte, mebibyte)
	for {
		n, err := io.ReadFull(device, data)
		g.Expect(bytes.Contains(data[:n], secret)).To(BeFalse())
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		g.Expect(err).NotTo(HaveOccurred())
	}
}
