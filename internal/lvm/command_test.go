package lvm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// program returns tools that know one program, a shell script named lvm.
func program(t *testing.T, script string) tools {
	t.Helper()
	dir := t.TempDir()
	NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, "lvm"), []byte("#!/bin/sh\n"+script), 0o700)).To(Succeed())
	return tools{dirs: []string{dir, "/usr/bin", "/bin"}, timeout: time.Minute, end: time.Minute, left: &atomic.Int32{}}
}

func TestProgramsHaveAnEmptyEnvironmentAndTheCLocale(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("LANG", "de_DE.UTF-8")
	t.Setenv("SECRET", "hunter2")
	out, err := program(t, `env | grep -v -e ^PWD= -e ^_= -e ^PATH= -e ^SHLVL= | sort; echo "$@"; pwd; cat`).run(t.Context(), "lvm", "a b", "$c")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(out)).To(Equal("LC_ALL=C\nLVM_SUPPRESS_FD_WARNINGS=1\na b $c\n/\n"))
}

func TestFailuresCarryTheCommandItsWordsAndTheirKind(t *testing.T) {
	for words, kind := range map[string]error{
		`Volume group "nogroup" not found
  Cannot process volume group nogroup`: volume.ErrNoGroup,
		`Pool nopool not found in Volume group ws.`:                                      volume.ErrNoGroup,
		`Failed to find logical volume "ws/nolv"`:                                        errNoVolume,
		`Logical Volume "tmp" already exists in volume group "ws"`:                       errExists,
		`Logical volume ws/tmp contains a filesystem in use.`:                            errBusy,
		`Logical volume ws/tmp is used by another device.`:                               errBusy,
		`Volume group "ws" has insufficient free space (512 extents): 7680 required.`:    volume.ErrCapacity,
		`Cannot create new thin volume, free space in thin pool ws/p reached threshold.`: volume.ErrCapacity,
		`Something that nobody has seen before.`:                                         nil,
	} {
		t.Run(words, func(t *testing.T) {
			g := NewWithT(t)
			_, err := program(t, "echo '  "+words+"' >&2; echo nothing; exit 5").run(t.Context(), "lvm", "lvs", "--", "ws")
			var failed *CommandError
			g.Expect(errors.As(err, &failed)).To(BeTrue())
			text := strings.Join(strings.Fields(words), " ")
			g.Expect(*failed).To(Equal(CommandError{Command: "lvm lvs -- ws", Code: 5, Words: text, Kind: kind}))
			g.Expect(err).To(MatchError(And(ContainSubstring("lvm lvs -- ws"), ContainSubstring("exit code 5: "+text))))
			if kind != nil {
				g.Expect(err).To(MatchError(kind))
			}
		})
	}
}

func TestWordsAreCut(t *testing.T) {
	_, err := program(t, "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").run(t.Context(), "lvm")
	NewWithT(t).Expect(len(err.Error())).To(BeNumerically("<", 2*maxWords))
}

func TestMissingProgramIsNamed(t *testing.T) {
	_, err := tools{dirs: []string{"/absent"}}.run(t.Context(), "mkfs.xfs", "-q")
	NewWithT(t).Expect(err).To(MatchError(`mkfs.xfs -q: there is no program "mkfs.xfs" in /absent: install its package`))
}

// A program that hangs is killed with its children, also one that does not want to end. The error has what it said before.
func TestProgramThatHangsIsKilled(t *testing.T) {
	const says = `echo "  Device pv0 does not answer." >&2; `
	for name, script := range map[string]string{
		"kind":     says + `sleep 1000 & echo $! > "$1.new"; mv "$1.new" "$1"; wait`,
		"stubborn": says + `trap "" TERM; sleep 1000 & echo $! > "$1.new"; mv "$1.new" "$1"; wait; wait`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			file := filepath.Join(t.TempDir(), "pid")
			tools := program(t, script)
			tools.end = 100 * time.Millisecond
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				NewWithT(t).Eventually(file, "1m").Should(BeARegularFile())
				cancel(ErrHangs)
			}()
			_, err := tools.run(ctx, "lvm", file)
			g.Expect(err).To(And(MatchError(ErrHangs), MatchError(context.DeadlineExceeded), Not(MatchError(context.Canceled))))
			g.Expect(err).To(MatchError(HavePrefix("lvm " + file + ": killed: Device pv0 does not answer.")))
			text, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			g.Expect(err).NotTo(HaveOccurred())
			g.Eventually(func() bool { return ended(pid) }, "1m").Should(BeTrue())
		})
	}
}

// ended also counts what is dead but not yet collected by its new parent.
func ended(pid int) bool {
	if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestProgramThatTakesTooLongSaysSo(t *testing.T) {
	tools := program(t, "exec sleep 1000")
	tools.timeout = time.Millisecond
	_, err := tools.run(t.Context(), "lvm", "lvs")
	NewWithT(t).Expect(err).To(MatchError("lvm lvs: killed: it did not end within 1ms"))
}

// Programs that not even SIGKILL ends wait for a disk: no more are started than a few.
func TestS7_ProgramsDoNotPileUp(t *testing.T) {
	g := NewWithT(t)
	tools := program(t, "echo ran")
	hangs := make(chan error)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrHangs)
	impatient := tools // not what runs: a program's last words take a moment to arrive
	impatient.end = time.Millisecond
	for range maxLeft {
		_, err := tools.run(t.Context(), "lvm", "lvs")
		g.Expect(err).NotTo(HaveOccurred())
		said := &speech{text: []byte("  Waiting for\n  the disk.")}
		err = impatient.kill(ctx, absent(t), "lvm lvs", hangs, said)
		g.Expect(err).To(And(MatchError(ErrHangs), MatchError(MatchRegexp(`^lvm lvs: killed: Waiting for the disk\.; process \d+ does not end on killed$`))))
	}
	_, err := tools.run(t.Context(), "lvm", "lvs")
	g.Expect(err).To(And(MatchError(ContainSubstring("lvm lvs: killed: not run, because 4 programs before it do not end")), MatchError(ErrHangs)))
	hangs <- nil
	g.Eventually(func() error {
		_, err := tools.run(t.Context(), "lvm", "lvs")
		return err
	}).Should(Succeed())
	close(hangs)
}

// absent returns a number that is no process's: that of one which has ended.
func absent(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	NewWithT(t).Expect(cmd.Run()).To(Succeed())
	return cmd.Process.Pid
}
