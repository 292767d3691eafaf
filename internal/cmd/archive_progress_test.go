package cmd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// terminal makes standard error a terminal for a test; what it returns closes it, and tells what was shown.
func terminal(t *testing.T) (tty *os.File, shown func() string) {
	t.Helper()
	g := NewWithT(t)
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = screen.Close() })
	g.Expect(unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)).To(Succeed())
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	g.Expect(err).NotTo(HaveOccurred())
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	before := os.Stderr
	os.Stderr = tty
	t.Cleanup(func() { os.Stderr = before })
	text := make(chan string)
	go func() {
		var all bytes.Buffer
		_, _ = io.Copy(&all, screen) // ends with an error when the other end is closed
		text <- all.String()
	}()
	return tty, func() string {
		g.Expect(tty.Close()).To(Succeed())
		return <-text
	}
}

// shows runs a command of archive on a terminal, and expects that it draws one line over and over, and empties it. What it prints is
// elsewhere, and returned.
func shows(t *testing.T, line string, args ...string) string {
	t.Helper()
	g := NewWithT(t)
	tty, shown := terminal(t)
	root := newRoot()
	var out bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(tty)
	g.Expect(root.ExecuteContext(t.Context())).To(Succeed())
	g.Expect(shown()).To(MatchRegexp(`^(\r` + line + `(  \S+/s)?(  \S+ left)?\x1b\[K)+\r\x1b\[K$`))
	return out.String()
}

// On a terminal it is shown how far something is, with its end where that is known.
func TestArchiveShowsProgressOnATerminal(t *testing.T) {
	at := newStoreURL(t)
	file := keep(t, t.TempDir(), "x.tar", tarball(t))
	for _, tt := range []struct {
		command   []string
		line, out string
	}{
		{[]string{"create", someTree(t)}, `backing up  \d files  \S+`, "created backup 1.1: 2 files, "},
		{[]string{"verify", "--read-data"}, `verifying  \S+`, "backup 1.1 is whole: 2 files, "},
		{[]string{"export", filepath.Join(t.TempDir(), "x.tar")}, `exporting  \S+`, ""},
		{[]string{"restore", t.TempDir()}, `restoring  \[[#-]{20}\] +\d+%  (\d of )?2 files  (\S+ of )?\S+`, "restored backup 1.1: 2 files, "},
		{[]string{"restore", "--path=src", t.TempDir()}, `restoring  \d files  \S+`, "restored backup 1.1: "},
		{[]string{"import", file}, `importing  \d files  \S+`, "imported backup 1.2: 2 files, "},
	} {
		t.Run(tt.command[0], func(t *testing.T) {
			NewWithT(t).Expect(shows(t, tt.line, append([]string{"archive", at, inDomain, ofWeb}, tt.command...)...)).To(HavePrefix(tt.out))
		})
	}
}

func TestArchiveShowsNoProgressElsewhere(t *testing.T) {
	g := NewWithT(t)
	out, err := call(t.Context(), "", "archive", "create", newStoreURL(t), inDomain, ofWeb, someTree(t))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).NotTo(ContainSubstring("\r"))
}
