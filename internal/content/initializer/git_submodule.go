package initializer

import (
	"context"
	"os"
	"strconv"
	"strings"
)

const (
	maxNesting    = 8
	maxSubmodules = 256
)

// submodule is what a repository says of one, which may be anything.
type submodule struct{ name, path, url string }

// submodules checks out those of a repository, and theirs. What .gitmodules says is read as data and judged before git acts on it.
func (r *repository) submodules(ctx context.Context, nesting int, count *int) error {
	list, err := r.listSubmodules(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	if nesting >= maxNesting {
		return newError(Invalid, nil, "submodules are nested more than %d levels deep in %s", maxNesting, r.dir)
	}
	if *count += len(list); *count > maxSubmodules {
		return newError(Invalid, nil, "there are more than %d submodules", maxSubmodules)
	}
	for _, s := range list {
		if err := r.updateSubmodule(ctx, s); err != nil {
			return err
		}
		inner := *r
		inner.dir = r.dir + "/" + s.path
		if err := inner.submodules(ctx, nesting+1, count); err != nil {
			return err
		}
	}
	return nil
}

// listSubmodules reads .gitmodules of the commit, not the file, which could be a link.
func (r *repository) listSubmodules(ctx context.Context) ([]submodule, error) {
	kind, err := r.optional(ctx, "ls-tree", "--full-tree", "--format=%(objectmode) %(objecttype)", "HEAD", "--", ".gitmodules")
	if err != nil || kind == "" {
		return nil, err
	}
	if kind != "100644 blob" && kind != "100755 blob" {
		return nil, newError(Invalid, nil, ".gitmodules is no file")
	}
	out, err := r.run(ctx, "config", "-z", "--no-includes", "--blob=HEAD:.gitmodules", "--get-regexp", `^submodule\..*\.(path|url)$`)
	if err != nil {
		return nil, newError(Invalid, err, ".gitmodules cannot be read: %v", err)
	}
	byName := map[string]*submodule{}
	var order []string
	for entry := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		key = strings.TrimPrefix(key, "submodule.")
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			continue
		}
		name := key[:dot]
		if byName[name] == nil {
			byName[name] = &submodule{name: name}
			order = append(order, name)
		}
		if key[dot+1:] == "path" {
			byName[name].path = value
		} else {
			byName[name].url = value
		}
	}
	list := make([]submodule, 0, len(order))
	for _, name := range order {
		list = append(list, *byName[name])
	}
	return list, nil
}

func (r *repository) updateSubmodule(ctx context.Context, s submodule) error {
	if err := r.judge(ctx, s); err != nil {
		return err
	}
	args := []string{"submodule", "update", "--checkout", "--progress"}
	if r.spec.Depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(r.spec.Depth))
	}
	_, err := r.run(ctx, append(args, "--", s.path)...)
	return err
}

// judge refuses paths that lead elsewhere, and URLs that the repository itself could not have. Git resolves relative URLs; the one
// that it will use is looked at.
func (r *repository) judge(ctx context.Context, s submodule) error {
	if s.path == "" || s.url == "" || hasControl(s.name+s.path+s.url) || strings.HasPrefix(s.url, "-") {
		return newError(Invalid, nil, "submodule %q has no path or URL, or one with control characters", s.name)
	}
	if err := validatePath("submodule path", s.path); err != nil {
		return err
	}
	if err := noLinks(r.dir, s.path); err != nil {
		return newError(Invalid, err, "submodule %q: %v", s.name, err)
	}
	if _, err := r.run(ctx, "submodule", "init", "--", s.path); err != nil {
		return err
	}
	url, err := r.run(ctx, "config", "--local", "--get", "submodule."+s.name+".url")
	if err != nil {
		return newError(Invalid, err, "submodule %q cannot be used: %v", s.name, err)
	}
	if _, err := validateURL("submodule", url, r.schemes); err != nil {
		return newError(Invalid, err, "submodule %q: %v", s.name, err)
	}
	return nil
}

// noLinks says whether a path leads through anything but directories.
func noLinks(dir, path string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	made := ""
	for part := range strings.SplitSeq(path, "/") {
		made = strings.TrimPrefix(made+"/"+part, "/")
		info, err := root.Lstat(made)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return &os.PathError{Op: "enter", Path: made, Err: os.ErrInvalid}
		}
	}
	return nil
}
