package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Accel is how the guest's instructions are executed.
type Accel string

// Auto is KVM where it boots, and TCG elsewhere. TCG translates instructions: it needs no support by the machine, and is
// several times slower.
const (
	Auto Accel = "auto"
	KVM  Accel = "kvm"
	TCG  Accel = "tcg"
)

const (
	kvmDevice = "/dev/kvm"
	// probeTimeout is how long KVM may take for what takes it a second. There are machines whose KVM runs only special
	// kernels; with others it hangs at some point of their start.
	probeTimeout = 30 * time.Second
	// probeArgument makes the initial file system say that it runs, and power off.
	probeArgument = "vm.probe"
	probeAnswer   = "initrd: it boots"
)

// ParseAccel checks a name that a person typed.
func ParseAccel(name string) (Accel, error) {
	switch a := Accel(name); a {
	case Auto, KVM, TCG:
		return a, nil
	default:
		return "", fmt.Errorf("unknown acceleration %q: use %s, %s or %s", name, Auto, KVM, TCG)
	}
}

// resolve replaces Auto by what works on this machine.
func (i *Image) resolve(ctx context.Context, a Accel, log io.Writer) (Accel, error) {
	if a == KVM || a == TCG {
		return a, nil
	}
	if err := openKVM(); err != nil {
		say(log, "no KVM here (%v): using TCG, which is slower", err)
		return TCG, nil
	}
	boots, err := i.kvmBoots(ctx, log)
	if err != nil {
		return "", err
	}
	if !boots {
		say(log, "this machine's KVM does not boot the kernel (%s): using TCG, which is slower", i.kvmAnswer())
		return TCG, nil
	}
	return KVM, nil
}

func openKVM() error {
	file, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: add yourself to its group", err)
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// kvmAnswer is a file that remembers whether the kernel boots with KVM, for one boot of this machine.
func (i *Image) kvmAnswer() string { return filepath.Join(i.dir, "kvm") }

// kvmBoots tells whether the kernel boots with KVM. It is tried once in the life of this machine's kernel.
func (i *Image) kvmBoots(ctx context.Context, log io.Writer) (bool, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, fmt.Errorf("try KVM: %w", err)
	}
	if text, err := os.ReadFile(i.kvmAnswer()); err == nil {
		if answer, ok := strings.CutPrefix(string(text), string(boot)); ok {
			return answer == "yes", nil
		}
	}
	start := time.Now()
	answer, err := "no", i.probe(ctx)
	if ctx.Err() != nil {
		return false, fmt.Errorf("try KVM: %w", context.Cause(ctx))
	}
	if err == nil {
		answer = "yes"
	}
	say(log, "tried KVM in %s: %s", since(start), answer)
	if err != nil {
		say(log, "%v", err)
	}
	// An image that belongs to somebody else is tried again next time.
	_ = os.WriteFile(i.kvmAnswer(), []byte(string(boot)+answer), 0o644)
	return answer == "yes", nil
}

// probe boots the kernel and the initial file system with KVM.
func (i *Image) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("nothing within %s", probeTimeout))
	defer cancel()
	m := machine{image: i, accel: KVM, memory: 512, cpus: 1, arguments: []string{probeArgument}}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, append(m.args(), "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	err := run(cmd)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && strings.Contains(output.String(), probeAnswer) {
		return nil
	}
	return fmt.Errorf("KVM does not work: %w; the console says:\n%s", err, lastLines(output.String(), 5))
}
