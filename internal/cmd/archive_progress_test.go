package cmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// terminal makes standard error a terminal for a test. It returns what is shown on it, too, and what closes it and tells all of that.
func terminal(t *testing.T) (tty *os.File, screen *lines, shown func() string) {
	t.Helper()
	g := NewWithT(t)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = master.Close() })
	g.Expect(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)).To(Succeed())
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	g.Expect(err).NotTo(HaveOccurred())
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	before := os.Stderr
	os.Stderr = tty
	t.Cleanup(func() { os.Stderr = before })
	screen = &lines{}
	all := make(chan struct{})
	go func() {
		defer close(all)
		_, _ = io.Copy(screen, master) // ends with an error when the other end is closed
	}()
	return tty, screen, func() string {
		g.Expect(tty.Close()).To(Succeed())
		<-all
		return screen.String()
	}
}

// shows runs a command of archive on a terminal, and expects that it draws one line over and over, and empties it. What it prints is
// elsewhere, and returned.
func shows(t *testing.T, line string, args ...string) string {
	t.Helper()
	g := NewWithT(t)
	tty, _, shown := terminal(t)
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

// A store that accepts connections and answers nothing is named, before the first attempt has failed.
func TestS7_ArchiveShowsThatItWaitsForTheStore(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	at := "--store=s3://bucket/?credentials=environment&endpoint=" + silent.URL
	for what, command := range map[string][]string{
		"backing up": {"create", someTree(t)}, "restoring": {"restore", t.TempDir()}, "looking for the backup": {"verify"},
	} {
		t.Run(command[0], func(t *testing.T) {
			g := NewWithT(t)
			tty, screen, shown := terminal(t)
			root := newRoot()
			root.SetArgs(append([]string{"archive", at, inDomain, ofWeb}, command...))
			root.SetErr(tty)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- root.ExecuteContext(ctx) }()
			g.Eventually(screen.String, "30s").Should(ContainSubstring(what + "  waiting "))
			cancel()
			g.Eventually(ended, "30s").Should(Receive(MatchError(context.Canceled)))
			g.Expect(shown()).To(MatchRegexp(`^(\r` + what + `  waiting \d+s \(attempt 1\) for s3://bucket[^\r]*\x1b\[K)+\r\x1b\[K`))
		})
	}
}

func TestArchiveShowsNoProgressElsewhere(t *testing.T) {
	g := NewWithT(t)
	out, err := call(t.Context(), "", "archive", "create", newStoreURL(t), inDomain, ofWeb, someTree(t))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).NotTo(ContainSubstring("\r"))
}
