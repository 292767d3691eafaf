package initializer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	// sshProgram is the first argument by which this program knows that it is to be git's ssh.
	sshProgram = "ws-daemon-ssh"
	// sshIdle is how long a server may say nothing; it counts what it sends long before it sends it.
	sshIdle    = 5 * time.Minute
	sshConnect = 30 * time.Second
)

// sshSecret is what ssh finds behind its descriptor.
type sshSecret struct {
	// Host is the only one that the key is for, with the port if the URL has one.
	Host       string `json:"host"`
	Key        string `json:"key"`
	KnownHosts string `json:"knownHosts"`
	// Deny are the networks that must not be connected to.
	Deny []netip.Prefix `json:"deny,omitempty"`
	// Connect is how long it may take until the server has let us in.
	Connect time.Duration `json:"connect"`
}

// enterSSH makes this process an ssh client, if git started it as one, and then never returns. It has no configuration, no agent and
// no files: it knows one key, for hosts whose keys are known, and runs what git wants run there.
func enterSSH() {
	if len(os.Args) < 2 || os.Args[1] != sshProgram {
		return
	}
	code, err := runSSH(context.Background(), os.Args[2:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: ssh: %v\n", err)
		code = 255
	}
	os.Exit(code)
}

func runSSH(ctx context.Context, args []string) (int, error) {
	user, address, command, err := parseSSH(args)
	if err != nil {
		return 0, err
	}
	secret, err := readSSHSecret()
	if err != nil {
		return 0, err
	}
	config, err := sshConfig(secret, user, address)
	if err != nil {
		return 0, err
	}
	conn, err := (&gate{deny: secret.Deny}).dialer(secret.Connect).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	idle := &idleConn{Conn: conn, until: time.Now().Add(secret.Connect)}
	transport, channels, requests, err := ssh.NewClientConn(idle, address, config)
	if err != nil {
		return 0, explainSSH(err)
	}
	idle.in.Store(true)
	client := ssh.NewClient(transport, channels, requests)
	defer func() { _ = client.Close() }()
	return runRemote(client, command)
}

// explainSSH says what a person can do about a handshake that failed.
func explainSSH(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the server does not come to the point: it has not let us in for too long")
	}
	if unknown, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		if len(unknown.Want) == 0 {
			return errors.New("host key verification failed: the host is not in known_hosts of the Secret")
		}
		return errors.New("host key verification failed: the host has another key than known_hosts of the Secret says")
	}
	return err
}

func runRemote(client *ssh.Client, command string) (int, error) {
	session, err := client.NewSession()
	if err != nil {
		return 0, err
	}
	defer func() { _ = session.Close() }()
	if version := os.Getenv("GIT_PROTOCOL"); version != "" {
		_ = session.Setenv("GIT_PROTOCOL", version) // servers need not take it
	}
	session.Stdout, session.Stderr = os.Stdout, os.Stderr
	input, err := session.StdinPipe()
	if err != nil {
		return 0, err
	}
	go func() {
		_, _ = io.Copy(input, os.Stdin) // git stops writing before it stops reading
		_ = input.Close()
	}()
	err = session.Run(command)
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		return exit.ExitStatus(), nil
	}
	return 0, err
}

// parseSSH reads the arguments that git gives to ssh: options, a host, a command.
func parseSSH(args []string) (user, address, command string, err error) {
	port := "22"
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "-p":
			port = args[1]
		case args[0] == "-o" && args[1] == "SendEnv=GIT_PROTOCOL":
		default:
			return "", "", "", fmt.Errorf("option %s is not supported", args[0])
		}
		args = args[2:]
	}
	if len(args) != 2 {
		return "", "", "", errors.New("a host and a command are needed")
	}
	user, host, ok := strings.Cut(args[0], "@")
	if !ok {
		user, host = "git", args[0]
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", "", fmt.Errorf("port %q is not valid", port)
	}
	return user, net.JoinHostPort(strings.Trim(host, "[]"), port), args[1], nil
}

// withPort adds the usual port to a host that has none.
func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), "22")
}

func readSSHSecret() (secret sshSecret, err error) {
	data, err := os.ReadFile("/proc/self/fd/" + secretFD)
	if err != nil {
		return secret, fmt.Errorf("read the key: %w", err)
	}
	if err := json.Unmarshal(data, &secret); err != nil {
		return secret, errors.New("the key cannot be read")
	}
	return secret, nil
}

func sshConfig(secret sshSecret, user, address string) (*ssh.ClientConfig, error) {
	if address != withPort(secret.Host) {
		return nil, fmt.Errorf("unable to authenticate: the key is for %s, not for %s", secret.Host, address)
	}
	signer, err := ssh.ParsePrivateKey([]byte(secret.Key))
	if err != nil {
		return nil, errors.New("unable to authenticate: the key of the Secret cannot be parsed; it must have no passphrase")
	}
	known, err := knownHosts(secret.KnownHosts)
	if err != nil {
		return nil, err
	}
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known, HostKeyAlgorithms: algorithms(known, address),
		ClientVersion: "SSH-2.0-ws-daemon",
	}, nil
}

// knownHosts reads the lines from memory; the library wants a file.
func knownHosts(lines string) (ssh.HostKeyCallback, error) {
	file, err := memoryFile("known_hosts", lines)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	known, err := knownhosts.New(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, errors.New("host key verification failed: known_hosts of the Secret cannot be parsed")
	}
	return known, nil
}

// algorithms are those of the keys that are known of a host: of several keys, it would else show one that is not known.
func algorithms(known ssh.HostKeyCallback, address string) []string {
	var unknown *knownhosts.KeyError
	if !errors.As(known(address, &net.TCPAddr{IP: net.IPv4zero}, noKey{}), &unknown) {
		return nil
	}
	var names []string
	for _, k := range unknown.Want {
		kind := k.Key.Type()
		if kind == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		}
		names = append(names, kind)
	}
	return slices.Compact(names)
}

// noKey is the key of no host.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// idleConn is a connection that ends at a time, or, once the server has let us in, when nothing comes for a while.
type idleConn struct {
	net.Conn
	until time.Time
	in    atomic.Bool
}

func (c *idleConn) deadline() time.Time {
	if c.in.Load() {
		return time.Now().Add(sshIdle)
	}
	return c.until
}

func (c *idleConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(c.deadline()); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *idleConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(c.deadline()); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
