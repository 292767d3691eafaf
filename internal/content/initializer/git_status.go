package initializer

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

const (
	// maxListed is how many names a list of [GitState] has; there may be more.
	maxListed = 100
	// maxListedName is how long each of them is.
	maxListedName = 512
)

// GitState is what somebody who works in a repository wants to know of it. The lists have at most 100 names; the totals are exact.
// Names that are not UTF-8 have a replacement character in the place of what is not.
type GitState struct {
	GitHead
	// Uncommitted files differ from the commit; of a renamed one it is the new name.
	Uncommitted      []string
	TotalUncommitted int64
	// Untracked files are not known to git, and not ignored.
	Untracked      []string
	TotalUntracked int64
	// Unpushed commits are on a branch here and on no branch of a remote: abbreviated id and subject.
	Unpushed      []string
	TotalUnpushed int64
}

// statusOrder is what the task in the sandbox is given.
type statusOrder struct {
	Program  string `json:"program"`
	Location string `json:"location"`
}

// Status looks at the repository at a location below dir, as a user who may read it. ErrNotFound if there is none. Nothing that the
// repository names is executed, and nothing in it is changed: git never sees its configuration.
func (g Git) Status(ctx context.Context, dir string, uid, gid uint32, location string) (GitState, error) {
	var state GitState
	if err := validatePath("checkout location", location); err != nil {
		return state, err
	}
	err := g.Sandbox.Run(ctx, sandbox.Job{
		Task: taskStatus, Input: statusOrder{g.Program, location}, Result: &state, Dir: dir, ReadOnly: true, UID: uid, GID: gid,
	})
	return state, outside(ctx, "look at the repository", err)
}

// statusTask looks in the sandbox, whose working directory is the content.
func statusTask(ctx context.Context, call *sandbox.Call) (any, error) {
	var order statusOrder
	if err := call.Decode(&order); err != nil {
		return nil, err
	}
	there, err := hasRepository(order.Location)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, newError(NotFound, nil, "there is no repository at %q", orDot(order.Location))
	}
	work, err := filepath.Abs(orDot(order.Location))
	if err != nil {
		return nil, err
	}
	v := &view{program: orGit(order.Program), work: work, dir: filepath.Join(os.TempDir(), "git")}
	if err := v.build(ctx); err != nil {
		return nil, newError(Failed, err, "read the repository: %v", err)
	}
	return v.look(ctx)
}

// git is git in our repository, with the objects and the index of the other one.
func (v *view) git(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{
		"--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false", "-c", "protocol.allow=never",
		"-c", "submodule.recurse=false", "-c", "log.showSignature=false", "-c", "status.showUntrackedFiles=all", "-c", "core.quotePath=false",
	}, args...)
	cmd := exec.CommandContext(ctx, v.program, args...)
	cmd.Dir, cmd.WaitDelay = v.work, 5*time.Second
	cmd.Env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ALLOW_PROTOCOL=",
		"GIT_DIR=" + v.dir, "GIT_WORK_TREE=" + v.work, "GIT_INDEX_FILE=" + v.work + "/.git/index", "GIT_OBJECT_DIRECTORY=" + v.work + "/.git/objects",
	}
	return cmd
}

func (v *view) look(ctx context.Context) (GitState, error) {
	var state GitState
	status := &statusReader{state: &state}
	// A submodule is not looked into: that is a repository with a configuration of its own.
	err := v.ask(ctx, status, "status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignore-submodules=dirty")
	if err != nil {
		return state, err
	}
	if state.Commit == "" {
		return state, nil
	}
	unpushed := []string{"--branches", "--not", "--remotes"}
	total := &head{limit: 64}
	if err := v.ask(ctx, total, append([]string{"rev-list", "--count"}, unpushed...)...); err != nil {
		return state, err
	}
	state.TotalUnpushed, _ = strconv.ParseInt(strings.TrimSpace(total.buf.String()), 10, 64)
	log := &head{limit: 1 << 20}
	err = v.ask(ctx, log, append([]string{"log", "-z", "--format=%h %s", "--max-count=" + strconv.Itoa(maxListed)}, unpushed...)...)
	for line := range strings.SplitSeq(strings.TrimRight(log.buf.String(), "\x00"), "\x00") {
		state.Unpushed = list(state.Unpushed, line)
	}
	return state, err
}

func (v *view) ask(ctx context.Context, out io.Writer, args ...string) error {
	words := &tail{}
	cmd := v.git(ctx, args...)
	cmd.Stdout, cmd.Stderr = out, words
	if err := cmd.Run(); err != nil {
		return newError(Failed, err, "git %s: %s", args[0], (&secret{}).sanitise(words.String()))
	}
	return nil
}

// list adds a name if there is room.
func list(names []string, name string) []string {
	if name == "" || len(names) >= maxListed {
		return names
	}
	if len(name) > maxListedName {
		name = name[:maxListedName]
	}
	return append(names, strings.ToValidUTF8(name, "\uFFFD"))
}

// statusReader reads the second form of git's status: entries that end with a zero, in which names are as they are.
type statusReader struct {
	splitter
	state *GitState
	// skip says that the next entry is the old name of a renamed file.
	skip bool
}

// maxStatusEntry is enough for what stands before a name and for as much of the name as is listed.
const maxStatusEntry = 1 << 10

// Write takes a part of the output.
func (r *statusReader) Write(p []byte) (int, error) {
	return r.split(p, maxStatusEntry, func(entry []byte) error {
		r.take(string(entry))
		return nil
	})
}

// fieldsBefore is the number of fields before the name, by the kind of an entry.
var fieldsBefore = map[string]int{"1": 7, "2": 8, "u": 9}

func (r *statusReader) take(entry string) {
	if r.skip {
		r.skip = false
		return
	}
	s := r.state
	kind, rest, _ := strings.Cut(entry, " ")
	switch kind {
	case "#":
		r.header(rest)
	case "?":
		s.TotalUntracked++
		s.Untracked = list(s.Untracked, rest)
	case "1", "2", "u":
		r.skip = kind == "2"
		s.TotalUncommitted++
		n := fieldsBefore[kind]
		if parts := strings.SplitN(rest, " ", n+1); len(parts) > n {
			s.Uncommitted = list(s.Uncommitted, parts[n])
		}
	}
}

func (r *statusReader) header(line string) {
	if id, ok := strings.CutPrefix(line, "branch.oid "); ok && id != "(initial)" {
		r.state.Commit = id
	}
	if name, ok := strings.CutPrefix(line, "branch.head "); ok && name != "(detached)" {
		r.state.Branch = strings.ToValidUTF8(name[:min(len(name), 250)], "\uFFFD")
	}
}
