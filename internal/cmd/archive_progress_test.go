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

// On a terminal totals are shown while something is done, and the line is empty afterwards. The report is elsewhere.
func TestArchiveShowsProgressOnATerminal(t *testing.T) {
	dir, at := someTree(t), newStoreURL(t)
	file := keep(t, t.TempDir(), "x.tar", tarball(t))
	for _, command := range [][]string{{"create", dir}, {"restore", t.TempDir()}, {"import", file}} {
		t.Run(command[0], func(t *testing.T) {
			g := NewWithT(t)
			tty, shown := terminal(t)
			root := newRoot()
			var out bytes.Buffer
			root.SetArgs(append([]string{"archive", at, inDomain, ofWeb}, command...))
			root.SetOut(&out)
			root.SetErr(tty)
			g.Expect(root.ExecuteContext(t.Context())).To(Succeed())
			g.Expect(out.String()).To(MatchRegexp(`^(created|restored|imported) backup 1\.[12]: 2 files, .*\n$`))
			g.Expect(shown()).To(MatchRegexp(`^(\r\d+ files, \d+\.\d MB )+\r\x1b\[K$`))
		})
	}
}

// Commands that read tell how much they have read.
func TestArchiveShowsWhatIsRead(t *testing.T) {
	at := newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, someTree(t))
	for _, command := range [][]string{{"verify", "--read-data"}, {"export", filepath.Join(t.TempDir(), "x.tar")}} {
		t.Run(command[0], func(t *testing.T) {
			g := NewWithT(t)
			tty, shown := terminal(t)
			root := newRoot()
			root.SetArgs(append([]string{"archive", at, inDomain, ofWeb}, command...))
			root.SetOut(io.Discard)
			root.SetErr(tty)
			g.Expect(root.ExecuteContext(t.Context())).To(Succeed())
			g.Expect(shown()).To(MatchRegexp(`^(\r\d+\.\d MB read )+\r\x1b\[K$`))
		})
	}
}

func TestArchiveShowsNoProgressElsewhere(t *testing.T) {
	g := NewWithT(t)
	out, err := call(t.Context(), "", "archive", "create", newStoreURL(t), inDomain, ofWeb, someTree(t))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).NotTo(ContainSubstring("\r"))
}
