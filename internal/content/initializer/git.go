package initializer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	// Credentials for exactly the scheme, host and port of URL; nil for none.
	Credentials *Credentials
}

// Credentials is a user name and a password or token.
type Credentials struct{ Username, Password string }

// Git clones repositories with the git command line, as the owner of the content.
//
// Git gets an empty environment, no configuration of the machine, no hooks, templates, submodules or LFS. Credentials
// are handed over in an anonymous memory file: they are never in an argument, the environment, a file or a message.
type Git struct {
	// Program is the path of git; "" means /usr/bin/git.
	Program string
	// AllowedSchemes are the URL schemes that may be used, of "https" and "http"; empty means "https".
	AllowedSchemes []string
	// Progress is told the stage ("Receiving objects") and its percent, if it is set. It must not block.
	Progress func(stage string, percent int)
	// Timeout limits the whole run; 0 means that only the context does.
	Timeout time.Duration
}

// Run clones the repository into the target: full history, all branches, then the one checkout the spec asks for.
func (g Git) Run(ctx context.Context, t Target, spec GitSpec) (Result, error) {
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.Timeout)
		defer cancel()
	}
	remote, err := g.validate(spec)
	if err != nil {
		return Result{}, err
	}
	if err := prepare(ctx, t); err != nil {
		return Result{}, err
	}
	dir, err := makeLocation(t, spec.CheckoutLocation)
	if err != nil {
		return Result{}, err
	}
	secret, err := newSecret(spec.Credentials)
	if err != nil {
		return Result{}, err
	}
	defer secret.close()
	r := &repository{git: g, target: t, dir: dir, remote: remote, spec: spec, secret: secret}
	head, err := r.fill(ctx)
	if err != nil {
		return Result{}, err
	}
	return Result{Source: SourceGit, Git: &head}, nil
}

// repository is one clone in the making.
type repository struct {
	git    Git
	target Target
	dir    string
	remote remote
	spec   GitSpec
	secret *secret
}

func (r *repository) fill(ctx context.Context) (GitHead, error) {
	if err := r.checkBranchName(ctx); err != nil {
		return GitHead{}, err
	}
	if err := r.clone(ctx); err != nil {
		return GitHead{}, err
	}
	born, err := r.born(ctx)
	if err != nil {
		return GitHead{}, err
	}
	if err := r.checkout(ctx, born); err != nil {
		return GitHead{}, err
	}
	return r.head(ctx)
}

// checkBranchName lets git judge the name, which it knows better than a regular expression.
func (r *repository) checkBranchName(ctx context.Context) error {
	name := r.spec.Branch + r.spec.LocalBranch
	if name == "" {
		return nil
	}
	if _, err := r.run(ctx, "check-ref-format", "refs/heads/"+name); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return err // git could not judge
		}
		return newError(Invalid, err, "branch name %q is not valid", name)
	}
	return nil
}

func (r *repository) clone(ctx context.Context) error {
	args := []string{"clone", "--no-checkout", "--template=", "--origin=origin", "--no-recurse-submodules", "--progress"}
	if r.spec.Branch != "" {
		args = append(args, "--branch="+r.spec.Branch)
	}
	_, err := r.run(ctx, append(args, "--", r.spec.URL, ".")...)
	return err
}

// born reports whether HEAD is a commit. Only a repository without any branch may have none.
func (r *repository) born(ctx context.Context) (bool, error) {
	if _, err := r.run(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err == nil {
		return true, nil
	} else if errors.Is(err, ErrTimeout) {
		return false, err
	}
	refs, err := r.run(ctx, "for-each-ref", "--count=1", "refs/remotes/origin")
	if err != nil {
		return false, err
	}
	if refs != "" && r.spec.Commit == "" {
		return false, newError(NotFound, nil, "the repository's HEAD names a branch that does not exist; name a branch")
	}
	return false, nil
}

func (r *repository) checkout(ctx context.Context, born bool) error {
	switch {
	case r.spec.Commit != "":
		return r.checkoutCommit(ctx)
	case r.spec.Branch != "":
		return r.checkoutBranch(ctx)
	case r.spec.LocalBranch != "":
		return r.checkoutLocal(ctx, born)
	case !born:
		return nil
	}
	return r.checkoutHead(ctx)
}

func (r *repository) checkoutHead(ctx context.Context) error {
	_, err := r.run(ctx, "checkout", "--force", "--progress", "HEAD", "--")
	return err
}

// checkoutBranch makes sure that the clone stands on the branch: clone's option also takes the name of a tag.
func (r *repository) checkoutBranch(ctx context.Context) error {
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	if head.Branch != r.spec.Branch || head.Commit == "" {
		return newError(NotFound, nil, "branch %q does not exist in the repository", r.spec.Branch)
	}
	return r.checkoutHead(ctx)
}

func (r *repository) checkoutLocal(ctx context.Context, born bool) error {
	name := r.spec.LocalBranch
	if !born {
		_, err := r.run(ctx, "symbolic-ref", "HEAD", "refs/heads/"+name)
		return err
	}
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	if head.Branch == name { // clone has made it already, but tracking its namesake
		if _, err := r.run(ctx, "branch", "--unset-upstream", name); err != nil {
			return err
		}
		return r.checkoutHead(ctx)
	}
	_, err = r.run(ctx, "checkout", "--force", "--progress", "--no-track", "-b", name, "HEAD", "--")
	return err
}

// checkoutCommit asks the server for the commit if no branch or tag leads to it.
func (r *repository) checkoutCommit(ctx context.Context) error {
	id := strings.ToLower(r.spec.Commit)
	found, err := r.hasCommit(ctx, id)
	if err != nil {
		return err
	}
	if !found {
		if err := r.fetchCommit(ctx, id); err != nil {
			return err
		}
	}
	_, err = r.run(ctx, "checkout", "--force", "--progress", "--detach", id, "--")
	return err
}

func (r *repository) fetchCommit(ctx context.Context, id string) error {
	_, err := r.run(ctx, "fetch", "--no-write-fetch-head", "--no-recurse-submodules", "--progress", "origin", id)
	if e := new(Error); errors.As(err, &e) && e.Kind != Failed && e.Kind != NotFound {
		return err
	}
	found, hasErr := r.hasCommit(ctx, id)
	if hasErr != nil {
		return hasErr
	}
	if !found {
		return newError(NotFound, err, "commit %s does not exist in the repository", id)
	}
	return nil
}

// hasCommit also refuses ids of tags and abbreviations: what is checked out must be exactly what was named.
func (r *repository) hasCommit(ctx context.Context, id string) (bool, error) {
	out, err := r.run(ctx, "rev-parse", "--verify", "--quiet", id+"^{commit}")
	if errors.Is(err, ErrTimeout) {
		return false, err
	}
	return err == nil && out == id, nil
}

func (r *repository) head(ctx context.Context) (GitHead, error) {
	var h GitHead
	var err error
	if h.Branch, err = r.optional(ctx, "symbolic-ref", "--quiet", "HEAD"); err != nil {
		return h, err
	}
	h.Branch = strings.TrimPrefix(h.Branch, "refs/heads/")
	h.Commit, err = r.optional(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	return h, err
}

// optional runs a query whose failure means "there is none".
func (r *repository) optional(ctx context.Context, args ...string) (string, error) {
	out, err := r.run(ctx, args...)
	if errors.Is(err, ErrTimeout) {
		return "", err
	}
	if err != nil {
		return "", nil //nolint:nilerr // Quiet queries fail when there is no answer.
	}
	return out, nil
}

// makeLocation creates the directory of the repository, owned by the target's owner, and returns its path.
func makeLocation(t Target, location string) (string, error) {
	if location == "" {
		return t.Dir, nil
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return "", newError(Failed, err, "open target: %v", err)
	}
	defer func() { _ = root.Close() }()
	path := ""
	for part := range strings.SplitSeq(location, "/") {
		path = strings.TrimPrefix(path+"/"+part, "/")
		if err := makeOwned(root, path, t); err != nil {
			return "", newError(Failed, err, "create checkout location %q: %v", path, err)
		}
	}
	return t.Dir + "/" + path, nil
}

func makeOwned(root *os.Root, path string, t Target) error {
	if err := root.Mkdir(path, 0o700); err != nil {
		return err
	}
	dir, err := root.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := dir.Chown(int(t.UID), int(t.GID)); err != nil {
		return err
	}
	return dir.Chmod(0o755)
}
