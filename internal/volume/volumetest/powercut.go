package volumetest

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// PowerCut is a disk that can lose its power: from then on whatever is written to it is lost, as what lay in memory would be. It is for
// root on a kernel with device mapper: in the virtual machine.
type PowerCut struct {
	name, loop string
	sectors    int64
}

// before is how many sectors of the file are not the disk's: LVM must not find on it what it finds on the disk.
const before = 2048

// NewPowerCut makes an empty disk of a size in bytes. It goes when the test ends; what uses it must have gone before.
func NewPowerCut(t *testing.T, size int64) *PowerCut {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	g := NewWithT(t)
	g.Expect(os.WriteFile(file, nil, 0o600)).To(Succeed())
	g.Expect(os.Truncate(file, size+512*before)).To(Succeed())
	p := &PowerCut{name: "cut-" + strings.ToLower(rand.Text()[:8]), sectors: size / 512}
	p.loop = strings.TrimSpace(Program(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { Program(t, "losetup", "--detach", p.loop) })
	Program(t, "dmsetup", "create", p.name, "--table", p.whole())
	t.Cleanup(func() { Program(t, "dmsetup", "remove", "--retry", p.name) })
	return p
}

// Path of the device.
func (p *PowerCut) Path() string { return "/dev/mapper/" + p.name }

func (p *PowerCut) whole() string { return fmt.Sprintf("0 %d linear %s %d", p.sectors, p.loop, before) }

// Cut cuts the power. The file system on the disk does not notice, and is not asked to write out anything before.
func (p *PowerCut) Cut(t *testing.T) {
	t.Helper()
	p.load(t, fmt.Sprintf("0 %d flakey %s %d 0 3600 1 drop_writes", p.sectors, p.loop, before))
}

// Restore gives the power back, once nothing uses the disk: it has what was written before the cut.
func (p *PowerCut) Restore(t *testing.T) {
	t.Helper()
	Program(t, "blockdev", "--flushbufs", p.Path())
	p.load(t, p.whole())
	NewWithT(t).Expect(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o600)).To(Succeed())
}

func (p *PowerCut) load(t *testing.T, table string) {
	t.Helper()
	Program(t, "dmsetup", "suspend", "--nolockfs", p.name)
	Program(t, "dmsetup", "load", p.name, "--table", table)
	Program(t, "dmsetup", "resume", p.name)
}

// Program runs a program that has to succeed, and returns what it prints.
func Program(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...) //nolint:noctx // it is also run when the context of the test has ended
	cmd.Env = append(os.Environ(), "LVM_SUPPRESS_FD_WARNINGS=1")
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s %q: %s", name, args, out)
	return string(out)
}
