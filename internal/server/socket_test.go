package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// listening opens the endpoint of a path, which has to work, until the end of the test.
func listening(w *world, path string) net.Listener {
	w.t.Helper()
	l, err := (&socketEndpoint{path: path}).listen(context.Background())
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

func modeOf(w *world, path string) string {
	info, err := os.Lstat(path)
	w.Expect(err).NotTo(HaveOccurred())
	return info.Mode().String()
}

func TestTheSocketIsTheDaemonsAlone(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(filepath.Dir(w.socket()), "socket")
	l := listening(w, path)
	w.Expect(modeOf(w, path)).To(Equal("Srw-------"))
	w.Expect(modeOf(w, filepath.Dir(path))).To(Equal("drwx------"))
	_, err := (&socketEndpoint{path: path}).listen(t.Context())
	w.Expect(err).To(MatchError(HavePrefix("another daemon serves in " + filepath.Dir(path))))
	w.Expect(l.Close()).To(Succeed())
	w.Expect(path).NotTo(BeAnExistingFile(), "nothing is left")
	listening(w, path)
}

// leftOver makes a socket that nobody serves any more, as a daemon that was killed leaves it.
func leftOver(w *world, path string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(unix.Bind(fd, &unix.SockaddrUnix{Name: path})).To(Succeed())
	w.Expect(unix.Close(fd)).To(Succeed())
}

func TestWhatLiesAtTheSocketsPath(t *testing.T) {
	for name, c := range map[string]struct {
		lay  func(w *world, path string)
		want string // of the error; empty if it works
	}{
		"a socket that is left over": {leftOver, ""},
		"a file": {func(w *world, path string) {
			w.Expect(os.WriteFile(path, []byte("precious"), 0o600)).To(Succeed())
		}, "%[1]s is no socket: remove it, or name another path"},
		"a directory": {func(w *world, path string) { w.Expect(os.Mkdir(path, 0o700)).To(Succeed()) }, "%[1]s is no socket: remove it, or name another path"},
		"a link": {func(w *world, path string) {
			leftOver(w, path+".other")
			w.Expect(os.Symlink(path+".other", path)).To(Succeed())
		}, "%[1]s is no socket: remove it, or name another path"},
		"a socket that somebody serves": {func(w *world, path string) {
			other, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
			w.Expect(err).NotTo(HaveOccurred())
			w.t.Cleanup(func() { _ = other.Close() })
		}, "somebody else serves %[1]s: name another path"},
		"a directory that others may use": {func(w *world, path string) {
			w.Expect(os.Chmod(filepath.Dir(path), 0o755)).To(Succeed())
		}, "others may use the directory %[2]s: it must belong to the daemon's user and have the mode 0700, not 0755; name one that the daemon makes"},
		"a directory of another user": {func(w *world, path string) {
			w.Expect(os.Chown(filepath.Dir(path), 12345, 0)).To(Succeed())
		}, "others may use the directory %[2]s: it must belong to the daemon's user and have the mode 0700, not 0700; name one that the daemon makes"},
		"a directory that is a link": {func(w *world, path string) {
			w.Expect(os.Rename(filepath.Dir(path), filepath.Dir(path)+".other")).To(Succeed())
			w.Expect(os.Symlink(filepath.Dir(path)+".other", filepath.Dir(path))).To(Succeed())
		}, "open the socket's directory: open %[2]s: not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path := w.socket()
			w.Expect(os.Mkdir(filepath.Dir(path), 0o700)).To(Succeed())
			c.lay(w, path)
			l, err := (&socketEndpoint{path: path}).listen(t.Context())
			if c.want == "" {
				w.Expect(err).NotTo(HaveOccurred())
				w.Expect(l.Close()).To(Succeed())
				return
			}
			w.Expect(err).To(MatchError(fmt.Sprintf(c.want+"%[3]s", path, filepath.Dir(path), "")))
		})
	}
}

// A socket that was mounted where others reach it serves root all the same, and nobody else.
func TestTheSocketServesRootOnly(t *testing.T) {
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "ws-open-") //nolint:usetesting // others cannot get into a test's directory
	w.Expect(err).NotTo(HaveOccurred())
	defer os.RemoveAll(dir)
	w.Expect(os.Chmod(dir, 0o755)).To(Succeed())
	path := filepath.Join(dir, "socket")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	w.Expect(err).NotTo(HaveOccurred())
	defer l.Close()
	w.Expect(os.Chmod(path, 0o666)).To(Succeed())
	handshake := func(uid int) error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		w.Expect(err).NotTo(HaveOccurred())
		defer unix.Close(fd)
		w.Expect(asUser(uid, func() { err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })).To(Succeed())
		w.Expect(err).NotTo(HaveOccurred())
		c, err := l.Accept()
		w.Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		_, _, err = rootOnly{}.ServerHandshake(c)
		return err
	}
	w.Expect(handshake(0)).To(Succeed())
	w.Expect(handshake(12345)).To(MatchError(fmt.Sprintf("process %d of user 12345 may not use the socket", os.Getpid())))
}

// A daemon that cannot have its socket tells so, and serves as soon as it can.
func TestASocketThatIsTakenIsTriedAgain(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	path := w.server.Config.Socket
	l := listening(w, path)
	w.server.Config.Socket = "" // nobody can wait for it
	w.start()
	w.stop()
	w.server.Config.Socket = path
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.server.Run(ctx) }()
	w.Eventually(w.told.String).Should(HavePrefix("ServiceUnavailable service.socket: nobody can use the service there: another daemon serves in "))
	w.Expect(l.Close()).To(Succeed())
	w.Eventually(func() string { return outcome(get(w.local(), "team-a", "web")) }).Should(Equal("OK"))
	cancel()
	w.Eventually(ended).Should(Receive(BeNil()))
	w.Expect(path).NotTo(BeAnExistingFile())
}
