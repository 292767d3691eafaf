package initializer

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// GitSpec says what to clone and what to check out. At most one of Branch, LocalBranch and Commit is set; none means
// the remote's HEAD.
type GitSpec struct {
	// URL of the repository, without user name and password.
	URL string
	// Branch must exist in the remote; it is checked out and tracks it.
	Branch string
	// LocalBranch is created from the remote's HEAD and tracks nothing.
	LocalBranch string
	// Commit is a full id (40 or 64 hexadecimal digits), checked out detached.
	Commit string
	// CheckoutLocation is the directory of the repository, relative to the target; "" is the target itself.
	CheckoutLocation string
	// Depth is how many commits of history are fetched; 0 for all, of all branches.
	Depth int
	// Filter leaves files out until they are needed: "blob:none", or "blob:limit=" and a size. It needs a server that can do so.
	Filter string
	// Sparse lists the directories to check out, besides the files of the root; none for all.
	Sparse []string
	// Submodules are checked out as well, and theirs.
	Submodules bool
	// LFS fetches the files that the repository keeps in Git LFS.
	LFS bool
	// Credentials for exactly the scheme, host and port of URL; nil for none.
	Credentials *Credentials
}

// Credentials is a user name and a password or token, or a bearer token, or a key for ssh with the hosts it is good for.
type Credentials struct {
	Username, Password string
	// Bearer is shown to the server as it is.
	Bearer string
	// Key is a private key without a passphrase, KnownHosts the keys of hosts, in the forms of OpenSSH.
	Key, KnownHosts string
}

// Git clones repositories with the git command line, as the owner of the content, in a sandbox.
//
// Git gets an empty environment, no configuration of the machine, no hooks and no templates. Credentials are handed over in an
// anonymous memory file: they are never in an argument, the environment, a file or a message.
type Git struct {
	// Sandbox is where git runs.
	Sandbox *sandbox.Sandbox
	// Program is the path of git; "" means /usr/bin/git.
	Program string
	// AllowedSchemes are the URL schemes that may be used, of "https", "http" and "ssh"; empty means "https".
	AllowedSchemes []string
	// Deny are the networks that must not be connected to, whatever leads there; none lets everything be.
	Deny []netip.Prefix
	// Progress is told how far git is, if it is set. It must not block.
	Progress func(Progress)
	// Stall is how long a server may say nothing; default two minutes: large repositories are counted before anything is sent.
	Stall time.Duration
	// Timeout limits the whole run; 0 means that only the context does.
	Timeout time.Duration
}

// Progress is how far a stage of the work is.
type Progress struct {
	// Stage is git's name for it: [StageReceiving], for example.
	Stage string `json:"stage"`
	// Percent of the stage, Done of Total things.
	Percent int   `json:"percent"`
	Done    int64 `json:"done,omitempty"`
	Total   int64 `json:"total,omitempty"`
	// Bytes that were received, if the stage counts them.
	Bytes int64 `json:"bytes,omitempty"`
}

// The stages of git that matter to others.
const (
	StageReceiving = "Receiving objects"
	StageFiles     = "Updating files"
)

// gitOrder is what the task in the sandbox is given.
type gitOrder struct {
	Program string         `json:"program"`
	Schemes []string       `json:"schemes"`
	Deny    []netip.Prefix `json:"deny,omitempty"`
	Stall   time.Duration  `json:"stall"`
	Spec    GitSpec        `json:"spec"`
}

// gitOutcome is what it returns.
type gitOutcome struct {
	Head  GitHead `json:"head"`
	Files int64   `json:"files"`
	Bytes int64   `json:"bytes"`
}

// Run clones the repository into the target: full history and all branches unless the spec wants less, then the one checkout that it
// asks for.
func (g Git) Run(ctx context.Context, t Target, spec GitSpec) (Result, error) {
	return g.run(ctx, taskGit, "clone "+spec.URL, t, spec)
}

func (g Git) run(ctx context.Context, task, what string, t Target, spec GitSpec) (Result, error) {
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.Timeout)
		defer cancel()
	}
	if _, err := g.validate(spec); err != nil {
		return Result{}, err
	}
	if err := prepare(ctx, t); err != nil {
		return Result{}, err
	}
	var out gitOutcome
	err := g.Sandbox.Run(ctx, sandbox.Job{
		Task: task, Input: gitOrder{g.Program, g.AllowedSchemes, g.Deny, orElse(g.Stall, 2*time.Minute), spec}, Result: &out,
		Dir: t.Dir, UID: t.UID, GID: t.GID, Network: true, Listen: true, Progress: g.report,
	})
	if err != nil {
		return Result{}, outside(ctx, what, err)
	}
	return Result{Source: SourceGit, Git: &out.Head, Files: out.Files, Bytes: out.Bytes}, nil
}

func (g Git) report(data json.RawMessage) {
	var p Progress
	if g.Progress != nil && json.Unmarshal(data, &p) == nil {
		g.Progress(p)
	}
}
