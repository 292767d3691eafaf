package vm

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Shell boots a machine whose console is the standard input and output of this process, and runs a shell there. It
// returns when the shell has ended and the power is off. Of the options, Results and Output do not matter.
func (i *Image) Shell(ctx context.Context, o Options) error {
	r, err := i.newRunning(ctx, o)
	if err != nil {
		return err
	}
	defer r.done()
	rows, columns := windowSize(os.Stdin)
	if err := r.prepare(ctx, shellPlan(o, rows, columns, cmp.Or(os.Getenv("TERM"), "linux"))); err != nil {
		return err
	}
	defer keepTerminal(os.Stdin)()
	say(r.Log, "booting; the shell's end is the end of the machine, Ctrl-A X cuts its power")
	r.start = time.Now()
	cmd := r.command(ctx, append(r.machine.args(),
		"-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console", "-mon", "chardev=console"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := run(cmd); err != nil {
		return fmt.Errorf("run VM: %w", err)
	}
	say(r.Log, "power off after %s", since(r.start))
	return nil
}

// windowSize gives the size of a terminal in characters.
func windowSize(terminal *os.File) (rows, columns int) {
	size, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return 24, 80
	}
	return int(size.Row), int(size.Col)
}

// keepTerminal gives a function that restores the terminal's settings, which QEMU changes and, when killed, leaves so.
func keepTerminal(terminal *os.File) (restore func()) {
	settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETSW, settings) }
}
