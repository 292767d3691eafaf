package stores

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/hack/tools"
)

const (
	// Bucket is the bucket that every server has.
	Bucket = "ws-daemon"
	// AccessKey names the S3 server's administrator.
	AccessKey = "ws-daemon-admin"
	// SecretKey is the administrator's.
	SecretKey = "ws-daemon-secret"

	startTimeout = 30 * time.Second
	stopGrace    = 5 * time.Second
	pollInterval = 20 * time.Millisecond
)

// Server is a running object store.
type Server struct {
	// Endpoint is its address, as http://127.0.0.1:port.
	Endpoint string
	// Data is the directory of its buckets, one directory each; empty if it keeps them in memory.
	Data string

	scheme  string
	process *process.Process
}

// StartS3 starts an S3 server that keeps its data below dir. It has the bucket [Bucket], and the credentials [AccessKey] and [SecretKey].
// Progress of a first build goes to log.
func StartS3(ctx context.Context, dir string, log io.Writer) (*Server, error) {
	s := &Server{scheme: "s3", Data: filepath.Join(dir, "data")}
	env := append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	// A bucket made as a directory belongs to the administrator.
	users := filepath.Join(dir, "users")
	return s, s.start(ctx, dir, log, versitygw(), env, []string{filepath.Join(s.Data, Bucket), users}, func(port int) []string {
		return []string{"--port", address(port), "--keep-alive", "--quiet", "--iam-dir", users, "posix", s.Data}
	})
}

// StartGCS starts a server of Google Cloud Storage that keeps its data in memory, and its log in dir. It has the bucket [Bucket] and asks
// for no credentials. Progress of a first build goes to log.
func StartGCS(ctx context.Context, dir string, log io.Writer) (*Server, error) {
	s := &Server{scheme: "gs"}
	err := s.start(ctx, dir, log, fakeGCS(), nil, []string{dir}, func(port int) []string {
		return []string{
			"-scheme", "http", "-host", "127.0.0.1", "-port", strconv.Itoa(port), "-public-host", address(port), "-log-level", "warn",
			"-backend", "memory", // on disk, names cannot be as long as they may be
		}
	})
	if err != nil {
		return s, err
	}
	return s, s.createBucket(ctx)
}

// URL is that of the store below a prefix of the bucket, reached at an endpoint: the server's own if that is empty.
func (s *Server) URL(prefix, endpoint string) string {
	if endpoint == "" {
		endpoint = s.Endpoint
	}
	return fmt.Sprintf("%s://%s/%s?endpoint=%s", s.scheme, Bucket, prefix, endpoint)
}

// WriteCredentials writes what S3 asks for into a directory, as a Secret that is mounted has it.
func WriteCredentials(dir string) error {
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "access-key-id"), []byte(AccessKey), 0o600),
		os.WriteFile(filepath.Join(dir, "secret-access-key"), []byte(SecretKey), 0o600))
}

// Stop ends the server. Its data stay.
func (s *Server) Stop() error {
	if s == nil || s.process == nil {
		return nil
	}
	_ = s.process.Stop(stopGrace) // it is told to end, and may call that a failure
	return nil
}

func (s *Server) start(ctx context.Context, dir string, log io.Writer, t tools.Tool, env, dirs []string, args func(port int) []string) error {
	program, err := t.Build(ctx, log)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("start %s: %w", t.Name, err)
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return fmt.Errorf("start %s: %w", t.Name, err)
	}
	s.Endpoint = "http://" + address(port)
	s.process, err = process.Start(filepath.Join(dir, t.Name+".log"), env, program, args(port)...)
	if err != nil {
		return err
	}
	if err := s.await(ctx); err != nil {
		_ = s.Stop()
		return fmt.Errorf("start %s: %w: %s", t.Name, err, s.process.Tail(10))
	}
	return nil
}

// await waits until the server answers anything.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if err := s.request(ctx, http.MethodGet, "/", nil); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not answer within %s", startTimeout)
		case <-s.process.Done():
			return errors.New("it has ended")
		case <-time.After(pollInterval):
		}
	}
}

func (s *Server) createBucket(ctx context.Context) error {
	return s.request(ctx, http.MethodPost, "/storage/v1/b?project=test", []byte(`{"name":"`+Bucket+`"}`))
}

func (s *Server) request(ctx context.Context, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.Endpoint+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if method != http.MethodGet && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// freePort returns a port on which nobody listens.
func freePort(ctx context.Context) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	at, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: %s is no TCP address", listener.Addr())
	}
	return at.Port, nil
}

func address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// AddUser makes a user of the S3 server, who may do what a bucket policy allows.
func (s *Server) AddUser(ctx context.Context, accessKey, secretKey string) error {
	program, err := versitygw().Build(ctx, io.Discard)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "admin", "--endpoint-url", s.Endpoint,
		"create-user", "--access", accessKey, "--secret", secretKey, "--role", "user")
	cmd.Env = append(os.Environ(), "ADMIN_ACCESS_KEY="+AccessKey, "ADMIN_SECRET_KEY="+SecretKey)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("add user %s: %w: %s", accessKey, err, out)
	}
	return nil
}
