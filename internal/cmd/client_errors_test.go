package cmd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// What the daemon says is the error, and its code is the exit code.
func TestClientExitCodes(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.InvalidArgument: 2, codes.NotFound: 4, codes.PermissionDenied: 5, codes.Unauthenticated: 5, codes.DeadlineExceeded: 6,
		codes.Unavailable: 7, codes.ResourceExhausted: 7, codes.FailedPrecondition: 1, codes.Aborted: 1, codes.DataLoss: 1, codes.Internal: 1,
	} {
		t.Run(code.String(), func(t *testing.T) {
			g := NewWithT(t)
			asks := (&standIn{get: func(*daemonv1.GetRequest) (*daemonv1.GetResponse, error) {
				return nil, status.Error(code, "do this\x1b[2J and that")
			}}).asks(t)
			_, err := call(t.Context(), "", asks("get", "web")...)
			g.Expect(err).To(MatchError(`do this\x1b[2J and that`))
			g.Expect(exitCode(err)).To(Equal(want))
		})
	}
}

func TestClientWrongUsage(t *testing.T) {
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing.pem")
	NewWithT(t).Expect(os.WriteFile(nothing, []byte("nothing"), 0o600)).To(Succeed())
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":   {[]string{"lists"}, `unknown command "lists" for "ws-daemon client"; see ws-daemon client --help`},
		"unknown flag":      {[]string{"list", "--colour"}, "unknown flag: --colour; see ws-daemon client list --help"},
		"no name":           {[]string{"get"}, "accepts 1 arg(s), received 0; see ws-daemon client get --help"},
		"two names":         {[]string{"get", "a", "b"}, "accepts 1 arg(s), received 2; see ws-daemon client get --help"},
		"another format":    {[]string{"list", "-o", "xml"}, "-o xml: must be one of json, yaml, wide, name"},
		"not for this":      {[]string{"watch", "-o", "yaml"}, "-o yaml: must be one of json, wide, name"},
		"a time ago":        {[]string{"list", "--timeout=-1s"}, "--timeout -1s: must not be negative"},
		"no time":           {[]string{"list", "--timeout=soon"}, `invalid argument "soon" for "--timeout" flag: time: invalid duration "soon"; see ws-daemon client list --help`},
		"another policy":    {[]string{"snapshot", "web", "--deletion-policy=keep"}, "--deletion-policy keep: must be Retain or Delete"},
		"two sources":       {[]string{"files", "web", "--backup=1.1", "--snapshot=s"}, "--backup and --snapshot name one backup each: only one of them can be looked into"},
		"two sources, too":  {[]string{"export", "web", "--backup=1.1", "--snapshot=s"}, "--backup and --snapshot name one backup each: only one of them can be looked into"},
		"one of all":        {[]string{"watch", "-A", "web"}, "-A is for all workspaces, not for web: name its namespace with -n"},
		"no certificates":   {[]string{"list", "--address=127.0.0.1:1"}, "--address 127.0.0.1:1: it needs --ca, --cert and --key; a socket of this machine is unix:///path"},
		"for a socket":      {[]string{"list", "--ca=/ca.pem"}, "--ca, --cert and --key are for an address as host:port, not for the socket unix:///run/ws-daemon/service/socket"},
		"no authorities":    {[]string{"list", "--address=a:1", "--ca=/nowhere", "--cert=c", "--key=k"}, "--ca: open /nowhere: no such file or directory"},
		"empty authorities": {[]string{"list", "--address=a:1", "--ca=" + nothing, "--cert=c", "--key=k"}, "--ca " + nothing + ": there is no certificate in PEM format in it"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := call(t.Context(), "", append([]string{"client"}, tt.args...)...)
			g.Expect(err).To(MatchError(tt.want))
			g.Expect(exitCode(err)).To(Equal(2))
		})
	}
}

func TestClientWithoutADaemon(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	left := filepath.Join(dir, "left") // as a daemon that was killed leaves it
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", left)
	g.Expect(err).NotTo(HaveOccurred())
	listener, _ := l.(*net.UnixListener)
	listener.SetUnlinkOnClose(false)
	g.Expect(l.Close()).To(Succeed())
	for path, want := range map[string]string{
		dir + "/none": "no such file or directory: is it running on this node, and is that service.socket of its configuration?",
		left:          "connection refused: is it running on this node? kubectl -n ws-daemon-system get pods -o wide",
	} {
		for _, command := range [][]string{{"list"}, {"watch"}, {"wait", "web"}, {"backup", "web"}, {"export", "web"}} {
			_, err := call(t.Context(), "", append([]string{"client", "--address=unix://" + path}, command...)...)
			g.Expect(err).To(MatchError("the daemon at unix://"+path+" cannot be reached: dial unix "+path+": connect: "+want), "%v", command)
			g.Expect(exitCode(err)).To(Equal(7))
		}
	}
}

// A daemon that does not answer is waited for as long as was said, and an interrupt ends the command at once.
func TestClientEndsInTime(t *testing.T) {
	s := &standIn{
		backup: func(to grpc.ServerStreamingServer[daemonv1.BackupResponse]) error {
			if err := to.Send(&daemonv1.BackupResponse{Phase: daemonv1.BackupPhase_BACKUP_PHASE_QUEUED}); err != nil {
				return err
			}
			<-to.Context().Done()
			return to.Context().Err()
		},
		watch: func(_ *daemonv1.WatchRequest, to grpc.ServerStreamingServer[daemonv1.WatchResponse]) error {
			<-to.Context().Done()
			return to.Context().Err()
		},
		waitReady: func(ctx context.Context) (*daemonv1.WaitReadyResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	for _, command := range []string{"backup", "wait"} {
		t.Run(command, func(t *testing.T) {
			g := NewWithT(t)
			asks := s.asks(t)
			_, err := call(t.Context(), "", asks(command, "web", "--timeout=100ms")...)
			g.Expect(err).To(MatchError("it takes longer than --timeout; what was begun goes on"))
			g.Expect(exitCode(err)).To(Equal(6))

			ctx, interrupt := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := call(ctx, "", asks(command, "web")...)
				ended <- err
			}()
			interrupt()
			g.Eventually(ended, "10s").Should(Receive(&err))
			g.Expect(err).To(MatchError("interrupted"))
			g.Expect(exitCode(err)).To(Equal(130))
		})
	}
}
