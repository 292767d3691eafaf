package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// socketEndpoint is the unix socket, in a directory that is the daemon's alone.
type socketEndpoint struct{ path string }

func (e *socketEndpoint) String() string { return "service.socket" }

func (e *socketEndpoint) credentials() credentials.TransportCredentials { return rootOnly{} }

func (e *socketEndpoint) register(g *grpc.Server) (stop func()) { return registerPlain(g) }

// listen makes the socket. One that a daemon left which was killed is replaced; one that somebody serves is not.
func (e *socketEndpoint) listen(ctx context.Context) (net.Listener, error) {
	dir, err := e.lock()
	if err != nil {
		return nil, err
	}
	l, err := e.make(ctx)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &lockedListener{l, dir}, nil
}

// lock makes the directory and takes it: of two daemons only one may look whether a socket is left over.
func (e *socketEndpoint) lock() (*os.File, error) {
	path := filepath.Dir(e.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the socket's directory: %w", err)
	}
	if err := private(dir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another daemon serves in %s: give this one another service.socket (%w)", path, err), dir.Close())
	}
	return dir, nil
}

// private refuses a directory in which somebody else could put a socket of his own in place of ours.
func private(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may use the directory %s: it must belong to the daemon's user and have the mode 0700, not %04o; name one that the daemon makes",
			dir.Name(), info.Mode().Perm())
	}
	return nil
}

func (e *socketEndpoint) make(ctx context.Context) (net.Listener, error) {
	if err := e.clear(ctx); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", e.path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(e.path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clear removes a socket that nobody serves.
func (e *socketEndpoint) clear(ctx context.Context) error {
	info, err := os.Lstat(e.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is no socket: remove it, or name another path", e.path)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", e.path)
	if err == nil {
		return errors.Join(fmt.Errorf("somebody else serves %s: name another path", e.path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("find out whether somebody serves %s: %w", e.path, err)
	}
	return os.Remove(e.path)
}

// lockedListener keeps its directory until it is closed, and its socket removed.
type lockedListener struct {
	net.Listener
	dir *os.File
}

// Close ends it.
func (l *lockedListener) Close() error { return errors.Join(l.Listener.Close(), l.dir.Close()) }

// rootOnly takes connections from root and the daemon's own user. The socket's mode says the same; this holds for a socket that was
// mounted elsewhere, or whose mode somebody has changed.
type rootOnly struct{}

// local is who is at the other end of a unix socket.
type local struct {
	credentials.CommonAuthInfo
	uid, pid int
}

// AuthType names the kind.
func (local) AuthType() string { return "unix" }

// ServerHandshake asks the kernel.
func (rootOnly) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	peer, err := peerOf(c)
	if err != nil {
		return nil, nil, err
	}
	if uid := int(peer.Uid); uid != 0 && uid != os.Geteuid() {
		return nil, nil, fmt.Errorf("process %d of user %d may not use the socket", peer.Pid, peer.Uid)
	}
	safe := credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return c, local{safe, int(peer.Uid), int(peer.Pid)}, nil
}

func peerOf(c net.Conn) (*unix.Ucred, error) {
	conn, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T is no socket", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(err, failed)
}

// ClientHandshake is none: these are credentials of a server.
func (rootOnly) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the socket's credentials are those of a server")
}

// Info names the protocol.
func (rootOnly) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone returns the same.
func (r rootOnly) Clone() credentials.TransportCredentials { return r }

// OverrideServerName is for clients.
func (rootOnly) OverrideServerName(string) error { return nil }
