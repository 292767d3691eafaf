package initializer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxStdout = 64 << 10
	keepLast  = 8 << 10
)

// run starts git in the repository's directory as the owner of the content and returns its trimmed output.
func (r *repository) run(ctx context.Context, args ...string) (string, error) {
	stdout, stderr := &head{limit: maxStdout}, &tail{progress: r.git.Progress}
	cmd := r.command(ctx, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := runGroup(cmd)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return "", newError(Timeout, ctxErr, "git %s was stopped: %v", args[0], ctxErr)
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", newError(Failed, err, "start git as uid %d: permission denied; git must be executable and every directory above %s "+
			"open to that user (mode 0711)", r.target.UID, r.dir)
	}
	if err != nil {
		return "", r.classify(args[0], stderr.String(), err)
	}
	return strings.TrimSpace(stdout.buf.String()), nil
}

// command goes through a shell only to set the umask and to forbid core files, which would contain credentials.
func (r *repository) command(ctx context.Context, args []string) *exec.Cmd {
	program := r.git.Program
	if program == "" {
		program = "/usr/bin/git"
	}
	argv := append([]string{"-c", `umask 022; ulimit -c 0; exec "$0" "$@"`, program}, r.options()...)
	cmd := exec.CommandContext(ctx, "/bin/sh", append(argv, args...)...)
	cmd.Dir = r.dir
	cmd.Env = environment(r.remote)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: r.target.UID, Gid: r.target.GID, Groups: []uint32{}},
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if r.secret.file != nil {
		cmd.ExtraFiles = []*os.File{r.secret.file}
	}
	return cmd
}

// runGroup ends what is left of the process group while the leader's number cannot have been given to another.
func runGroup(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	return cmd.Wait()
}

func environment(r remote) []string {
	allowed := r.scheme
	if r.also != "" {
		allowed += ":" + r.also
	}
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_PROTOCOL_FROM_USER=0", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_SSH_COMMAND=/bin/false", "GIT_OPTIONAL_LOCKS=0", "GIT_ALLOW_PROTOCOL=" + allowed,
	}
}

// options are given to every call, so that nothing of them stays in the repository's configuration.
func (r *repository) options() []string {
	values := []string{
		"protocol.allow=never", "protocol." + r.remote.scheme + ".allow=always",
		"http.followRedirects=initial", "http.lowSpeedLimit=1", "http.lowSpeedTime=120",
		"transfer.credentialsInUrl=die", "transfer.fsckObjects=true",
		"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=true", "core.protectNTFS=true", "core.protectHFS=true",
		"init.templateDir=", "submodule.recurse=false", "fetch.recurseSubmodules=false", "safe.bareRepository=explicit",
		"checkout.workers=0", "gc.auto=0", "maintenance.auto=false", "advice.detachedHead=false",
		"core.askPass=", "credential.helper=",
	}
	if r.remote.also != "" {
		values = append(values, "protocol."+r.remote.also+".allow=always")
	}
	if r.secret.file != nil {
		values = append(values, "credential."+r.remote.scheme+"://"+r.remote.host+".helper="+r.remote.helper())
	}
	options := make([]string, 0, 2*len(values)+1)
	for _, v := range values {
		options = append(options, "-c", v)
	}
	return append(options, "--no-pager")
}

// classify turns git's words into a kind; git's exit code says nothing.
func (r *repository) classify(command, stderr string, err error) error {
	message := r.secret.sanitise(stderr)
	if message == "" {
		message = err.Error()
	}
	return newError(kindOf(stderr), err, "git %s: %s", command, message)
}

func kindOf(stderr string) Kind {
	phrases := []struct {
		kind Kind
		any  []string
	}{
		{Unauthorized, []string{"Authentication failed", "could not read Username", "could not read Password",
			"returned error: 401", "returned error: 403"}},
		{NotFound, []string{"returned error: 404", "returned error: 410", "not found in upstream", "couldn't find remote ref",
			"not our ref", "does not advertise", "not valid: is this a git repository?"}},
		{Invalid, []string{"not allowed", "is not supported", "is not a valid"}},
	}
	lines := fatalLines(stderr)
	for _, p := range phrases {
		for _, phrase := range p.any {
			if strings.Contains(lines, phrase) {
				return p.kind
			}
		}
	}
	if regexp.MustCompile(`(?m)^fatal: repository '.*' not found`).MatchString(lines) {
		return NotFound
	}
	return Failed
}

// fatalLines leaves out what the server says ("remote: …"), which is not git's judgement.
func fatalLines(stderr string) string {
	var b strings.Builder
	for line := range strings.FieldsFuncSeq(stderr, func(r rune) bool { return r == '\n' || r == '\r' }) {
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// head keeps the first bytes of an output and drops the rest.
type head struct {
	limit int
	buf   bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), h.limit-h.buf.Len())])
	return len(p), nil
}

// tail keeps the last bytes of an output and reports the progress it contains.
type tail struct {
	progress func(string, int)
	last     []byte
	cut      bool // the beginning of last is not that of a line
	line     []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if extra := len(t.last) - keepLast; extra > 0 {
		t.last, t.cut = t.last[extra:], true
	}
	for _, c := range p {
		if c != '\r' && c != '\n' {
			t.line = append(t.line, c)
			t.line = t.line[:min(len(t.line), 200)]
			continue
		}
		t.report(string(t.line))
		t.line = t.line[:0]
	}
	return len(p), nil
}

// String leaves out a line whose beginning is lost: half a secret would not be recognised.
func (t *tail) String() string {
	if !t.cut {
		return string(t.last)
	}
	_, rest, _ := strings.Cut(string(t.last), "\n")
	return rest
}

func (t *tail) report(line string) {
	stage, percent, ok := parseProgress(line)
	if ok && t.progress != nil {
		t.progress(stage, percent)
	}
}

// parseProgress knows git's own stages only: the server can say anything else.
func parseProgress(line string) (stage string, percent int, ok bool) {
	m := regexp.MustCompile(`^(Receiving objects|Resolving deltas|Updating files|Checking connectivity): +([0-9]{1,3})% `).FindStringSubmatch(line + " ")
	if m == nil {
		return "", 0, false
	}
	percent, err := strconv.Atoi(m[2])
	return m[1], percent, err == nil && percent <= 100
}

func progressLine(line string) bool {
	_, _, ok := parseProgress(line)
	return ok || strings.HasPrefix(line, "remote: Counting objects") || strings.HasPrefix(line, "remote: Compressing objects") ||
		strings.HasPrefix(line, "remote: Enumerating objects") || strings.HasPrefix(line, "remote: Total ")
}
