package initializer

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// gitTask clones in the sandbox, whose working directory is the target.
func gitTask(ctx context.Context, call *sandbox.Call) (any, error) {
	return withRepository(ctx, call, func(r *repository, location string) (gitOutcome, error) {
		var err error
		if r.dir, err = makeLocation(location); err != nil {
			return gitOutcome{}, err
		}
		return r.fill(ctx)
	})
}

// openItself opens this program, for git to run it as its ssh.
func openItself() (*os.File, error) {
	return os.OpenFile("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
}

// repository is one clone in the making.
type repository struct {
	itself   *os.File // this program
	program  string
	dir      string
	remote   remote
	schemes  []string // of submodules
	spec     GitSpec
	stall    time.Duration
	deny     []netip.Prefix
	secret   *secret
	relay    *relay // nil if nothing is denied
	progress func(Progress)
}

// fill downloads first, and checks out when it is known that what was downloaded fits into the volume.
func (r *repository) fill(ctx context.Context) (gitOutcome, error) {
	var out gitOutcome
	if err := r.checkBranchName(ctx); err != nil {
		return out, err
	}
	if err := r.clone(ctx); err != nil {
		return out, err
	}
	born, err := r.born(ctx)
	if err != nil {
		return out, err
	}
	if born {
		if err := r.fetch(ctx); err != nil {
			return out, err
		}
		if out.Files, out.Bytes, err = r.measure(ctx); err != nil {
			return out, err
		}
	}
	if err := r.checkout(ctx, born); err != nil {
		return out, err
	}
	if born {
		if err := r.complete(ctx, &out); err != nil {
			return out, err
		}
	}
	out.Head, err = r.head(ctx)
	return out, err
}

// complete adds what is not a part of the repository itself, and counts again where that could not be known before.
func (r *repository) complete(ctx context.Context, out *gitOutcome) error {
	if r.spec.Submodules {
		count := 0
		if err := r.submodules(ctx, 0, &count); err != nil {
			return err
		}
	}
	if r.spec.LFS {
		if err := r.lfs(ctx); err != nil {
			return err
		}
	}
	if r.spec.Submodules || r.spec.LFS || r.spec.Filter != "" || len(r.spec.Sparse) > 0 {
		var err error
		out.Files, out.Bytes, err = countFiles(r.dir)
		return err
	}
	return nil
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
	if r.spec.Depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(r.spec.Depth))
	}
	if r.spec.Filter != "" {
		args = append(args, "--filter="+r.spec.Filter)
	}
	if _, err := r.run(ctx, append(args, "--", r.spec.URL, ".")...); err != nil {
		return err
	}
	return r.narrow(ctx)
}

// narrow has the checkout take a part only, and lets those who work here fetch all branches, where one was cloned.
func (r *repository) narrow(ctx context.Context) error {
	if r.spec.Depth > 0 {
		if _, err := r.run(ctx, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"); err != nil {
			return err
		}
	}
	if len(r.spec.Sparse) == 0 {
		return nil
	}
	_, err := r.run(ctx, append([]string{"sparse-checkout", "set", "--cone"}, r.spec.Sparse...)...)
	return err
}

// born reports whether there is a commit to check out. Only a repository without any branch may have none.
func (r *repository) born(ctx context.Context) (bool, error) {
	if r.spec.Commit != "" {
		return true, nil
	}
	if _, err := r.run(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err == nil {
		return true, nil
	} else if errors.Is(err, ErrTimeout) {
		return false, err
	}
	refs, err := r.run(ctx, "for-each-ref", "--count=1", "refs/remotes/origin")
	if err != nil {
		return false, err
	}
	if refs != "" {
		return false, newError(NotFound, nil, "the repository's HEAD names a branch that does not exist; name a branch")
	}
	return false, r.reallyEmpty(ctx)
}

// reallyEmpty asks the server itself: git takes whatever answers with little for an empty repository of a server that only has files.
func (r *repository) reallyEmpty(ctx context.Context) error {
	if r.remote.scheme == "ssh" {
		return nil
	}
	query := "?"
	if strings.Contains(r.spec.URL, "?") {
		query = "&"
	}
	spec := DownloadSpec{URL: strings.TrimSuffix(r.spec.URL, "/") + "/info/refs" + query + "service=git-upload-pack", Credentials: r.spec.Credentials}
	s := newSource(ctx, downloadOrder{Deny: r.deny, Spec: spec, Stall: r.stall})
	response, cancel, err := s.request() //nolint:contextcheck // the source has it
	if err != nil {
		return newError(Failed, err, "ask the server whether the repository is empty: %s", s.plain(err))
	}
	defer cancel()
	if err := response.Body.Close(); err != nil {
		return newError(Failed, err, "ask the server whether the repository is empty: %v", err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/x-git-upload-pack-advertisement" {
		return newError(NotFound, nil, "what answers at %s is no git server", r.spec.URL)
	}
	return nil
}

// fetch asks the server for the commit if no branch or tag leads to it.
func (r *repository) fetch(ctx context.Context) error {
	if r.spec.Commit == "" {
		return nil
	}
	id := strings.ToLower(r.spec.Commit)
	found, err := r.hasCommit(ctx, id)
	if err != nil || found {
		return err
	}
	return r.fetchCommit(ctx, id)
}

func (r *repository) fetchCommit(ctx context.Context, id string) error {
	args := []string{"fetch", "--no-write-fetch-head", "--no-recurse-submodules", "--progress"}
	if r.spec.Depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(r.spec.Depth))
	}
	_, err := r.run(ctx, append(args, "origin", id)...)
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

func (r *repository) checkout(ctx context.Context, born bool) error {
	switch {
	case r.spec.Commit != "":
		_, err := r.run(ctx, "checkout", "--force", "--progress", "--detach", strings.ToLower(r.spec.Commit), "--")
		return err
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

// makeLocation makes the directory of the repository below the working directory, and returns its path. What is there already was
// put there by earlier steps, which may be hostile: links are not followed, and the directory itself must be empty.
func makeLocation(location string) (string, error) {
	if location == "" {
		return ".", nil
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return "", newError(Failed, err, "open target: %v", err)
	}
	defer func() { _ = root.Close() }()
	path := ""
	for part := range strings.SplitSeq(location, "/") {
		path = strings.TrimPrefix(path+"/"+part, "/")
		if err := makeDirectory(root, path); err != nil {
			return "", newError(Failed, err, "create checkout location %q: %v", path, err)
		}
	}
	return path, nil
}

// makeDirectory makes a directory unless there is one.
func makeDirectory(root *os.Root, path string) error {
	err := root.Mkdir(path, 0o755)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := root.Lstat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "mkdir", Path: path, Err: fs.ErrExist}
	}
	return err
}
