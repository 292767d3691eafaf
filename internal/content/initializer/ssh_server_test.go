package initializer_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshServer is a server that lets one key in and runs git-upload-pack below a directory. It records what it is asked to run.
type sshServer struct {
	t       *testing.T
	root    string
	address string
	host    ssh.Signer
	allowed ssh.PublicKey

	mu   sync.Mutex
	seen []string
}

func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	g := NewWithT(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	signer, err := ssh.NewSignerFromKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	block, err := ssh.MarshalPrivateKey(private, "test")
	g.Expect(err).NotTo(HaveOccurred())
	return signer, string(pem.EncodeToMemory(block))
}

// newSSHServer returns the server and the private key that it lets in.
func newSSHServer(t *testing.T, root string) (*sshServer, string) {
	t.Helper()
	g := NewWithT(t)
	client, private := newKey(t)
	host, _ := newKey(t)
	s := &sshServer{t: t, root: root, host: host, allowed: client.PublicKey()}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	s.address = listener.Addr().String()
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(conn) })
		}
	})
	return s, private
}

func (s *sshServer) knownHosts() string {
	return knownhosts.Line([]string{knownhosts.Normalize(s.address)}, s.host.PublicKey()) + "\n"
}

func (s *sshServer) serve(conn net.Conn) {
	defer conn.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), s.allowed.Marshal()) {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	config.AddHostKey(s.host)
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		s.session(channel, requests)
	}
}

func (s *sshServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	protocol := ""
	for r := range requests {
		var text struct{ Value string }
		switch r.Type {
		case "env":
			var env struct{ Name, Value string }
			_ = ssh.Unmarshal(r.Payload, &env)
			protocol = env.Name + "=" + env.Value
			_ = r.Reply(true, nil)
		case "exec":
			_ = ssh.Unmarshal(r.Payload, &text)
			_ = r.Reply(true, nil)
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{s.exec(channel, text.Value, protocol)}))
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
}

func (s *sshServer) exec(channel ssh.Channel, command, protocol string) uint32 {
	s.mu.Lock()
	s.seen = append(s.seen, command)
	s.mu.Unlock()
	path, ok := strings.CutPrefix(command, "git-upload-pack ")
	if !ok {
		return 127
	}
	cmd := exec.CommandContext(s.t.Context(), "git", "-c", "safe.directory=*", "upload-pack", s.root+strings.Trim(path, "'"))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", protocol}
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	input, err := cmd.StdinPipe()
	if err != nil {
		return 1
	}
	if err := cmd.Start(); err != nil {
		return 1
	}
	go func() { _, _ = io.Copy(input, channel); _ = input.Close() }()
	if err := cmd.Wait(); err != nil {
		return 128
	}
	return 0
}
