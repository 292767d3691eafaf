package vm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// machine is what QEMU's arguments are made of.
type machine struct {
	image  *Image
	accel  Accel
	memory int // MiB
	cpus   int
	// arguments go to the kernel.
	arguments []string
	network   bool
	// forward are the rules by which ports lead into the guest.
	forward []string
	drives  []drive
	ports   []port
}

// drive is a disk. The guest finds it by its name, which is its serial number.
type drive struct {
	name     string
	file     string
	snapshot bool // what is written is lost
}

// port is a serial port of the guest, of which the host reads a file.
type port struct {
	name string
	file string
}

// args gives the arguments of QEMU, except for the console.
func (m machine) args() []string {
	accel, cpu := string(m.accel), "max"
	if m.accel == TCG {
		// Without the newer instructions, which TCG emulates one by one, programs are up to ten times faster.
		accel, cpu = accel+",thread=multi", "qemu64"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none", "-nic", m.nic(),
		"-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-kernel", m.image.kernel(), "-initrd", m.image.initrd(), "-append", m.commandLine(),
	}
	if m.network {
		args = append(args, "-global", "virtio-net-pci.romfile=") // it boots from no network
	}
	for _, d := range m.drives {
		args = append(args, d.args()...)
	}
	if len(m.ports) > 0 {
		args = append(args, "-device", "virtio-serial-pci")
	}
	for _, p := range m.ports {
		args = append(args,
			"-chardev", fmt.Sprintf("file,id=%s,path=%s", p.name, escape(p.file)),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", p.name, p.name))
	}
	return args
}

// nic gives the network of the machine.
func (m machine) nic() string {
	if m.network {
		return strings.Join(append([]string{"user,model=virtio-net-pci,ipv6=off"}, m.forward...), ",")
	}
	return "none"
}

// commandLine makes the kernel quick and quiet, and a panic the end of QEMU.
func (m machine) commandLine() string {
	const line = "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off no_timer_check"
	return strings.Join(append([]string{line}, m.arguments...), " ")
}

func (d drive) args() []string {
	// What QEMU writes survives its own death; power cuts of the host do not matter, so nothing is synced.
	options := fmt.Sprintf("if=none,id=%s,format=raw,cache=unsafe,discard=unmap,file=%s", d.name, escape(d.file))
	if d.snapshot {
		options += ",snapshot=on"
	}
	return []string{"-drive", options, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", d.name, d.name)}
}

// escape protects commas, which separate options.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// createSparse makes a disk without content, unless the file is there.
func createSparse(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create disk: %w", err)
	}
	if err := file.Truncate(size); err != nil {
		_ = file.Close()
		return fmt.Errorf("create disk: %w", err)
	}
	return file.Close()
}

// lastLines gives the end of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
