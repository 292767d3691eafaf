package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestArgs(t *testing.T) {
	m := machine{
		image:     &Image{dir: "/cache/image"},
		accel:     TCG,
		memory:    512,
		cpus:      3,
		arguments: []string{"extra=1"},
		drives: []drive{
			{name: "root", file: "/cache/image/root.img", snapshot: true},
			{name: "xfs", file: "/a,b/xfs.img"},
		},
		ports: []port{{"output", "/dev/fd/3"}},
	}
	NewWithT(t).Expect(strings.Join(m.args(), " ")).To(Equal(strings.Join([]string{
		"-nodefaults -no-user-config -no-reboot -display none -nic none",
		"-accel tcg,thread=multi -cpu qemu64 -smp 3 -m 512",
		"-kernel /cache/image/vmlinuz -initrd /cache/image/initrd",
		"-append console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off no_timer_check extra=1",
		"-drive if=none,id=root,format=raw,cache=unsafe,discard=unmap,file=/cache/image/root.img,snapshot=on",
		"-device virtio-blk-pci,drive=root,serial=root",
		"-drive if=none,id=xfs,format=raw,cache=unsafe,discard=unmap,file=/a,,b/xfs.img",
		"-device virtio-blk-pci,drive=xfs,serial=xfs",
		"-device virtio-serial-pci",
		"-chardev file,id=output,path=/dev/fd/3 -device virtserialport,chardev=output,name=output",
	}, " ")))

	o := MachineOptions{Address: "10.0.2.16", Forward: map[int]int{2001: 10250, 2000: 80}}
	m = machine{image: m.image, accel: TCG, network: true, forward: o.forwards()}
	NewWithT(t).Expect(strings.Join(m.args(), " ")).To(ContainSubstring(
		" -nic user,model=virtio-net-pci,ipv6=off,hostfwd=tcp:127.0.0.1:2000-10.0.2.16:80,hostfwd=tcp:127.0.0.1:2001-10.0.2.16:10250 "))

	m = machine{image: m.image, accel: KVM, memory: 512, cpus: 1}
	args := strings.Join(m.args(), " ")
	NewWithT(t).Expect(args).To(ContainSubstring(" -accel kvm -cpu max "))
	NewWithT(t).Expect(args).NotTo(ContainSubstring("virtio"))
}

func TestCreateSparseKeepsWhatIsThere(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "disk")
	g.Expect(createSparse(path, 1<<40)).To(Succeed())
	info, err := os.Stat(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Size()).To(Equal(int64(1 << 40)))
	g.Expect(createSparse(path, 1)).To(Succeed())
	info, err = os.Stat(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Size()).To(Equal(int64(1 << 40)))
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"", 2, ""},
		{"a\nb\n", 2, "a\nb"},
		{"a\r\nb\r\nc\r\n", 2, "b\r\nc"},
	} {
		NewWithT(t).Expect(lastLines(c.text, c.n)).To(Equal(c.want))
	}
}
