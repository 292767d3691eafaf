package initializer

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxStdout = 64 << 10
	keepLast  = 8 << 10
)

// run starts git in the repository's directory and returns its trimmed output.
func (r *repository) run(ctx context.Context, args ...string) (string, error) {
	stdout := &head{limit: maxStdout}
	err := r.stream(ctx, stdout, args...)
	return strings.TrimSpace(stdout.buf.String()), err
}

// stream starts git and hands its output over as it comes. What git leaves running ends with the task.
func (r *repository) stream(ctx context.Context, stdout io.Writer, args ...string) error {
	stderr := &tail{progress: r.progress}
	cmd := r.command(ctx, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if ctxErr := ctx.Err(); ctxErr != nil {
		return newError(Timeout, ctxErr, "git %s was stopped: %v", args[0], ctxErr)
	}
	if err != nil {
		return r.classify(args[0], stderr.String(), err)
	}
	return nil
}

func orGit(program string) string {
	if program == "" {
		return "/usr/bin/git"
	}
	return program
}

func (r *repository) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, orGit(r.program), append(r.options(), args...)...)
	if args[0] == lfsCommand {
		cmd = r.narrowed(ctx, args)
	}
	cmd.Dir = r.dir
	cmd.Env = r.environment()
	cmd.WaitDelay = 5 * time.Second
	if r.secret.file != nil {
		cmd.ExtraFiles = []*os.File{r.secret.file}
	}
	if r.secret.kind == keySecret {
		cmd.ExtraFiles = append(cmd.ExtraFiles, r.itself)
	}
	return cmd
}

// protocols are those that git may speak: that of the URL, and for submodules those that are allowed.
func (r *repository) protocols() []string {
	protocols := []string{r.remote.scheme}
	if r.remote.also != "" {
		protocols = append(protocols, r.remote.also)
	}
	if r.spec.Submodules {
		protocols = append(protocols, r.schemes...)
	}
	slices.Sort(protocols)
	return slices.Compact(protocols)
}

func (r *repository) environment() []string {
	allowed := strings.Join(r.protocols(), ":")
	ssh := "/bin/false"
	if r.secret.kind == keySecret {
		ssh = "/proc/self/fd/" + itselfFD + " " + sshProgram
	}
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "GIT_PROTOCOL_FROM_USER=0", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_SSH_COMMAND=" + ssh, "GIT_SSH_VARIANT=ssh", "GIT_OPTIONAL_LOCKS=0", "GIT_ALLOW_PROTOCOL=" + allowed,
		"GIT_CEILING_DIRECTORIES=" + above(r.dir),
	}
}

// above is where git must not look for a repository: what lies there was put there by others, and its configuration would be in force
// where the repository in dir turns out not to be one.
func above(dir string) string {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "/"
	}
	return filepath.Dir(path)
}

// options are given to every call, so that nothing of them stays in the repository's configuration.
func (r *repository) options() []string {
	values := []string{
		"protocol.allow=never",
		"http.followRedirects=" + r.redirects(), "http.lowSpeedLimit=1", "http.lowSpeedTime=" + strconv.Itoa(int(r.stall.Seconds())),
		"transfer.credentialsInUrl=die", "transfer.fsckObjects=true", "transfer.bundleURI=false", "fetch.uriProtocols=",
		"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=true", "core.protectNTFS=true", "core.protectHFS=true",
		"init.templateDir=", "submodule.recurse=false", "fetch.recurseSubmodules=false", "safe.bareRepository=explicit",
		"checkout.workers=0", "gc.auto=0", "maintenance.auto=false", "advice.detachedHead=false",
		"core.askPass=", "credential.helper=", "core.fsync=none",
	}
	for _, p := range r.protocols() {
		values = append(values, "protocol."+p+".allow=always")
	}
	if r.relay != nil {
		values = append(values, "http.proxy="+r.relay.url())
	}
	if r.spec.LFS {
		values = append(values, lfsOptions()...)
	}
	switch r.secret.kind {
	case noSecret, keySecret:
	case bearerSecret:
		values = append(values, "include.path=/proc/self/fd/"+secretFD)
	case basicSecret:
		values = append(values, "credential."+r.remote.scheme+"://"+r.remote.host+".helper="+r.remote.helper())
	}
	options := make([]string, 0, 2*len(values)+1)
	for _, v := range values {
		options = append(options, "-c", v)
	}
	return append(options, "--no-pager")
}

// redirects says which of them git follows. It would show a bearer token to the new host as well; a password it would not.
func (r *repository) redirects() string {
	if r.secret.kind == bearerSecret {
		return "false"
	}
	return "initial"
}

// classify turns git's words into a kind; git's exit code says nothing.
func (r *repository) classify(command, stderr string, err error) error {
	if denied := r.relay.denied(); denied != nil {
		return newError(Invalid, err, "git %s: %v", command, denied)
	}
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
		{Full, []string{"No space left on device", "Disk quota exceeded"}},
		{Unauthorized, []string{"Authentication failed", "could not read Username", "could not read Password",
			"returned error: 401", "returned error: 403", "unable to authenticate", "host key verification failed"}},
		{NotFound, []string{"returned error: 404", "returned error: 410", "not found in upstream", "couldn't find remote ref",
			"not our ref", "does not advertise", "not valid: is this a git repository?", "does not appear to be a git repository"}},
		{Invalid, []string{"fsck error in", "not allowed", "File name too long", "configuration denies the address", "is not supported", "is not a valid",
			"Out of memory", "not a git repository", "is not an empty directory", "disabled in libcurl"}},
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
	progress func(Progress)
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
	if p, ok := parseProgress(line); ok && t.progress != nil {
		t.progress(p)
	}
}

// parseProgress knows git's own stages only: the server can say anything else.
func parseProgress(line string) (Progress, bool) {
	const stages = `Receiving objects|Resolving deltas|Updating files|Checking connectivity`
	m := regexp.MustCompile(`^(` + stages + `): +([0-9]{1,3})% \(([0-9]{1,12})/([0-9]{1,12})\)(?:, ([0-9.]{1,9}) (bytes|[KMG]iB))?`).
		FindStringSubmatch(line)
	if m == nil {
		return Progress{}, false
	}
	p := Progress{Stage: m[1]}
	p.Percent, _ = strconv.Atoi(m[2])
	p.Done, _ = strconv.ParseInt(m[3], 10, 64)
	p.Total, _ = strconv.ParseInt(m[4], 10, 64)
	amount, _ := strconv.ParseFloat(m[5], 64)
	p.Bytes = int64(amount * map[string]float64{"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[6]])
	return p, p.Percent <= 100
}

func progressLine(line string) bool {
	_, ok := parseProgress(line)
	return ok || strings.HasPrefix(line, "remote: Counting objects") || strings.HasPrefix(line, "remote: Compressing objects") ||
		strings.HasPrefix(line, "remote: Enumerating objects") || strings.HasPrefix(line, "remote: Total ")
}
