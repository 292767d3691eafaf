package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"wsdaemon.dev/ws-daemon/hack/process"
)

// MachineOptions are those of a machine that runs beside its caller. Of Options, it has no use for Results, Output, Network and KeepDisks.
type MachineOptions struct {
	Options
	// Dir keeps the machine's disks, its root disk included, and console.log; it is created.
	Dir string
	// Address is the guest's, in 10.0.2.0/24. This machine is 10.0.2.2.
	Address string
	// Forward maps ports of 127.0.0.1 here to ports of the guest.
	Forward map[int]int
	// Script is a file in the guest that its init sources once it has the network. When that returns, the power goes off.
	Script string
}

// Machine is a virtual machine whose disks outlive its power: it can be switched on again.
type Machine struct {
	options MachineOptions
	args    []string
	qemu    string
	process *process.Process
}

// NewMachine makes the disks of a machine, whose power is off.
func (i *Image) NewMachine(ctx context.Context, o MachineOptions) (*Machine, error) {
	o.Options = o.withDefaults()
	accel, err := i.resolve(ctx, o.Accel, o.Log)
	if err != nil {
		return nil, err
	}
	path, err := find(qemu)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("create directory of machine: %w", err)
	}
	m := machine{image: i, accel: accel, memory: o.Memory, cpus: o.CPUs, network: true, forward: o.forwards()}
	if m.drives, err = i.machineDisks(ctx, o); err != nil {
		return nil, err
	}
	console := escape(filepath.Join(o.Dir, "console.log"))
	args := append(m.args(), "-chardev", "file,id=console,append=on,path="+console, "-serial", "chardev:console")
	return &Machine{options: o, args: args, qemu: path}, nil
}

// machineDisks makes the root disk, which is a copy of the image's, the input disk, and empty ones.
func (i *Image) machineDisks(ctx context.Context, o MachineOptions) ([]drive, error) {
	file := func(name string) string { return filepath.Join(o.Dir, name+".img") }
	out, err := exec.CommandContext(ctx, "cp", "--sparse=always", "--reflink=auto", i.root(), file("root")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("copy root disk: %w: %s", err, out)
	}
	if err := writeInput(ctx, o.Input, machinePlan(o), file("input")); err != nil {
		return nil, err
	}
	drives := []drive{{name: "root", file: file("root")}, {name: "input", file: file("input")}}
	for _, disk := range o.Disks {
		if err := createSparse(file(string(disk)), diskSize); err != nil {
			return nil, err
		}
		drives = append(drives, drive{name: string(disk), file: file(string(disk))})
	}
	return drives, nil
}

// forwards gives QEMU's options for the ports that lead into the guest, in a fixed order.
func (o MachineOptions) forwards() []string {
	rules := make([]string, 0, len(o.Forward))
	for outer, inner := range o.Forward {
		guest := net.JoinHostPort(o.Address, strconv.Itoa(inner))
		rules = append(rules, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-%s", outer, guest))
	}
	slices.Sort(rules)
	return rules
}

// Start switches the power on. It returns before the guest has booted.
func (m *Machine) Start() error {
	if m.process.Alive() {
		return errors.New("start machine: it runs")
	}
	var err error
	m.process, err = process.Start(filepath.Join(m.options.Dir, "qemu.log"), nil, m.qemu, m.args...)
	return err
}

// PowerOff cuts the power: what the guest has not written to its disks is lost.
func (m *Machine) PowerOff() {
	if !m.process.Alive() {
		return
	}
	m.process.Signal(syscall.SIGKILL)
	<-m.process.Done()
}

// Wait returns when the guest has switched the power off, as a reboot does as well.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.process.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until the machine is off: %w", context.Cause(ctx))
	}
}

// Alive says whether the power is on.
func (m *Machine) Alive() bool { return m.process.Alive() }

// LastWords gives the end of what QEMU and the console said.
func (m *Machine) LastWords() string {
	text, err := os.ReadFile(filepath.Join(m.options.Dir, "console.log"))
	if err != nil {
		text = []byte(err.Error())
	}
	return m.process.Tail(5) + "\n" + process.LastLines(string(text), consoleLines)
}
