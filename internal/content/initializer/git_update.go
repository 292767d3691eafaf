package initializer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// Update brings a repository that lies in the target already, from a snapshot, to what the spec asks for: it fetches what is new and
// checks it out over what there is. Changes to files that git knows are given up; other files stay. A repository that is not there is
// cloned.
func (g Git) Update(ctx context.Context, t Target, spec GitSpec) (Result, error) {
	return g.run(ctx, taskUpdate, "update "+spec.URL, t, spec)
}

// updateTask updates in the sandbox, whose working directory is the target.
func updateTask(ctx context.Context, call *sandbox.Call) (any, error) {
	return withRepository(ctx, call, func(r *repository, location string) (gitOutcome, error) {
		there, err := hasRepository(location)
		if err != nil {
			return gitOutcome{}, err
		}
		if !there {
			if r.dir, err = makeLocation(location); err != nil {
				return gitOutcome{}, err
			}
			return r.fill(ctx)
		}
		if err := r.launder(ctx); err != nil {
			return gitOutcome{}, err
		}
		return r.update(ctx)
	})
}

// hasRepository says whether there is a repository whose .git is a directory, at a place to which no link leads.
func hasRepository(location string) (bool, error) {
	path := strings.TrimPrefix(location+"/.git", "/")
	switch err := noLinks(".", path); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, newError(Invalid, err, "the repository of the prebuild at %q: %v", location, err)
	}
	return true, nil
}

// launder makes a repository that somebody else has worked in one that git can be run in: with credentials, what its configuration
// and hooks name must not have a chance to be run, although the sandbox would contain it. What is left describes the repository, and
// cannot name a program.
func (r *repository) launder(ctx context.Context) error {
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return newError(Failed, err, "open the repository: %v", err)
	}
	defer func() { _ = root.Close() }()
	kept, err := r.keepable(ctx, root)
	if err != nil {
		return err
	}
	err = forget(root, "config", "config.worktree", "hooks", "commondir", "modules", "worktrees",
		"index.lock", "config.lock", "HEAD.lock", "shallow.lock", "packed-refs.lock")
	if err == nil {
		err = onlyFiles(root)
	}
	if err == nil {
		err = forget(root, "info/attributes", "info/grafts", "objects/info/alternates")
	}
	if err != nil {
		return err
	}
	if err := root.WriteFile(".git/config", []byte("[core]\n\trepositoryformatversion = 1\n"), 0o644); err != nil {
		return newError(Failed, err, "clean the repository of the prebuild: %v", err)
	}
	for _, setting := range kept {
		key, value, _ := strings.Cut(setting, "\n")
		if _, err := r.run(ctx, "config", "--file", ".git/config", "--add", "--", key, value); err != nil {
			return err
		}
	}
	for key, value := range map[string]string{"url": r.spec.URL, "fetch": "+refs/heads/*:refs/remotes/origin/*"} {
		if _, err := r.run(ctx, "config", "--file", ".git/config", "remote.origin."+key, value); err != nil {
			return err
		}
	}
	return nil
}

// forget removes parts of a repository.
func forget(root *os.Root, names ...string) error {
	for _, name := range names {
		if err := root.RemoveAll(".git/" + name); err != nil {
			return newError(Failed, err, "clean the repository of the prebuild: %v", err)
		}
	}
	return nil
}

// onlyFiles refuses what git would follow or wait for: in the place of its files, others may have left links and pipes. In the working
// copy, those are the files that git reads wherever they lie.
func onlyFiles(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		inside := strings.HasPrefix(path+"/", ".git/")
		switch {
		case errors.Is(err, fs.ErrPermission) && !inside:
			return fs.SkipDir // git cannot look into it either
		case err != nil:
			return newError(Failed, err, "look at the repository of the prebuild: %v", err)
		}
		harmless := d.IsDir() || d.Type().IsRegular() || d.Type() == fs.ModeSymlink && !inside
		if !harmless && (inside || strings.HasPrefix(d.Name(), ".git")) {
			return newError(Invalid, nil, "the repository of the prebuild has a link or a pipe at %.300q", path)
		}
		return nil
	})
}

// keepable reads the settings of a hostile configuration that say what a repository is. Files that it includes are not read.
func (r *repository) keepable(ctx context.Context, root *os.Root) ([]string, error) {
	info, err := root.Lstat(".git/config")
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxStdout {
		return nil, newError(Invalid, err, "the repository of the prebuild has no usable configuration")
	}
	out := &head{limit: maxStdout}
	// Not in the repository: its configuration would be in force.
	cmd := exec.CommandContext(ctx, orGit(r.program), "config", "-z", "--no-includes", "--list", "--file", r.dir+"/.git/config")
	cmd.Stdout, cmd.WaitDelay = out, 5*time.Second
	cmd.Env = append(r.environment(), "GIT_DIR=/nonexistent")
	if err := cmd.Run(); err != nil {
		return nil, newError(Invalid, err, "the configuration of the repository of the prebuild cannot be read")
	}
	harmless := regexp.MustCompile(`^(core\.(filemode|bare|logallrefupdates|ignorecase|symlinks|sparsecheckout|sparsecheckoutcone)|` +
		`extensions\.objectformat|branch\..*\.(remote|merge)|remote\.origin\.(promisor|partialclonefilter)|user\.(name|email))$`)
	var kept []string
	for setting := range strings.SplitSeq(strings.TrimRight(out.buf.String(), "\x00"), "\x00") {
		key, value, _ := strings.Cut(setting, "\n")
		promisor := setting == "extensions.partialclone\norigin" // another name could be any URL
		if (promisor || harmless.MatchString(key)) && !hasControl(key+value) {
			kept = append(kept, setting)
		}
	}
	return kept, nil
}

// update fetches and checks out.
func (r *repository) update(ctx context.Context) (gitOutcome, error) {
	var out gitOutcome
	if err := r.checkBranchName(ctx); err != nil {
		return out, err
	}
	if _, err := r.run(ctx, "fetch", "--no-write-fetch-head", "--no-recurse-submodules", "--prune", "--progress", "origin"); err != nil {
		return out, err
	}
	args, rev, err := r.goal(ctx)
	if err != nil {
		return out, err
	}
	if out.Files, out.Bytes, err = r.measureRevision(ctx, rev); err != nil {
		return out, err
	}
	if _, err := r.run(ctx, append([]string{"checkout", "--force", "--progress"}, args...)...); err != nil {
		return out, err
	}
	if err := r.complete(ctx, &out); err != nil {
		return out, err
	}
	out.Head, err = r.head(ctx)
	return out, err
}

// goal returns what to tell checkout, and the revision that it leads to.
func (r *repository) goal(ctx context.Context) (args []string, rev string, err error) {
	if r.spec.Commit != "" {
		id := strings.ToLower(r.spec.Commit)
		return []string{"--detach", id, "--"}, id, r.fetch(ctx)
	}
	branch := r.spec.Branch
	if branch == "" {
		if _, err := r.run(ctx, "remote", "set-head", "origin", "--auto"); err != nil {
			return nil, "", newError(NotFound, err, "the repository's HEAD names a branch that does not exist; name a branch")
		}
		head, err := r.run(ctx, "symbolic-ref", "refs/remotes/origin/HEAD")
		if err != nil {
			return nil, "", err
		}
		branch = strings.TrimPrefix(head, "refs/remotes/origin/")
	}
	rev = "refs/remotes/origin/" + branch
	if found, err := r.optional(ctx, "rev-parse", "--verify", "--quiet", rev+"^{commit}"); err != nil || found == "" {
		return nil, "", newError(NotFound, err, "branch %q does not exist in the repository", branch)
	}
	if r.spec.LocalBranch != "" {
		return []string{"--no-track", "-B", r.spec.LocalBranch, rev, "--"}, rev, nil
	}
	return []string{"--track", "-B", branch, rev, "--"}, rev, nil
}

// withRepository runs a task of git with what it was ordered to do.
func withRepository(ctx context.Context, call *sandbox.Call, do func(r *repository, location string) (gitOutcome, error)) (any, error) {
	var order gitOrder
	if err := call.Decode(&order); err != nil {
		return nil, err
	}
	git := Git{Program: order.Program, AllowedSchemes: order.Schemes}
	remote, err := git.validate(order.Spec)
	if err != nil {
		return nil, err
	}
	secret, err := newSecret(order.Spec.Credentials, remote, order.Deny, order.Stall)
	if err != nil {
		return nil, err
	}
	defer secret.close()
	itself, err := openItself()
	if err != nil {
		return nil, fmt.Errorf("open this program: %w", err)
	}
	defer func() { _ = itself.Close() }()
	relay := startRelay(ctx, call.Listener, order.Deny)
	location := order.Spec.CheckoutLocation
	return do(&repository{
		itself: itself, program: order.Program, dir: orDot(location), remote: remote, schemes: git.schemes(), spec: order.Spec,
		stall: order.Stall, deny: order.Deny, secret: secret, relay: relay,
		progress: func(p Progress) { call.Report(p) },
	}, location)
}
