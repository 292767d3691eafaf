package initializer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxRefs and maxRefBytes bound what is read of a repository's refs. They are held in a directory that the node's tasks may share.
	maxRefs     = 100_000
	maxRefBytes = 8 << 20
	// maxRef is the size of a file with one ref.
	maxRef = 4 << 10
	// maxSharedIndexes is how many parts of a split index there may be; git removes old ones.
	maxSharedIndexes = 100
)

// view is a repository of our own that has the objects, the index and the refs of another one, and not its configuration.
type view struct {
	program string
	work    string // the working copy
	dir     string // our repository
	refs    map[string]string
	bytes   int64
}

func (v *view) build(ctx context.Context) error {
	source, err := os.OpenRoot(v.work + "/.git")
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	for _, dir := range []string{"refs", "info"} {
		if err := os.MkdirAll(filepath.Join(v.dir, dir), 0o700); err != nil {
			return err
		}
	}
	config := "[core]\n\trepositoryformatversion = 1\n\tbare = false\n"
	if v.sha256(ctx) {
		config += "[extensions]\n\tobjectFormat = sha256\n"
	}
	if err := v.write("config", config); err != nil {
		return err
	}
	if err := v.head(source); err != nil {
		return err
	}
	if err := v.shareIndexes(source); err != nil {
		return err
	}
	for _, name := range []string{"shallow", "info/exclude"} {
		if err := v.copy(source, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return v.copyRefs(source)
}

func (v *view) write(name, text string) error {
	return os.WriteFile(filepath.Join(v.dir, name), []byte(text), 0o600)
}

// sha256 says whether the repository has long ids. Its configuration is read as data, without what it includes.
func (v *view) sha256(ctx context.Context) bool {
	out, err := v.git(ctx, "config", "--no-includes", "--file", v.work+"/.git/config", "--get", "extensions.objectformat").Output()
	return err == nil && strings.TrimSpace(string(out)) == "sha256"
}

// head copies what is checked out. Repositories that keep their refs in another way have something else there, for gits that do not
// know that way.
func (v *view) head(source *os.Root) error {
	text, err := v.read(source, "HEAD", maxRef)
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) == "ref: refs/heads/.invalid" {
		return errors.New("its refs are in a format that is not read here (reftable)")
	}
	return v.write("HEAD", text)
}

// shareIndexes shows what an index that is split refers to. Git looks for it beside the configuration.
func (v *view) shareIndexes(source *os.Root) error {
	names, err := fs.Glob(source.FS(), "sharedindex.*")
	if err != nil {
		return err
	}
	for _, name := range names[:min(len(names), maxSharedIndexes)] {
		if info, err := source.Lstat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := os.Symlink(filepath.Join(v.work, ".git", name), filepath.Join(v.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// copy copies a regular file.
func (v *view) copy(source *os.Root, name string) error {
	text, err := v.read(source, name, maxRefBytes)
	if err != nil {
		return err
	}
	return v.write(name, text)
}

// read reads a regular file, with an end to how much is read of all. Nothing is waited for.
func (v *view) read(source *os.Root, name string, most int64) (string, error) {
	f, err := source.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	v.bytes += int64(len(data))
	if err == nil && (int64(len(data)) > most || v.bytes > maxRefBytes) {
		err = errors.New("its refs are too large")
	}
	return string(data), err
}

// copyRefs reads the refs, and puts them down in one file: there are not as many files as a repository likes, and no link among them.
// Those that name others are aliases, which nobody counts.
func (v *view) copyRefs(source *os.Root) error {
	v.refs = map[string]string{}
	packed, err := v.read(source, "packed-refs", maxRefBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(packed) {
		if id, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
			if err := v.ref(name, id); err != nil {
				return err
			}
		}
	}
	if err := v.looseRefs(source); err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString("# pack-refs with: sorted \n")
	for _, name := range slices.Sorted(maps.Keys(v.refs)) {
		text.WriteString(v.refs[name] + " " + name + "\n")
	}
	return v.write("packed-refs", text.String())
}

// looseRefs reads those that have a file each, which count more than others of the same name.
func (v *view) looseRefs(source *os.Root) error {
	return fs.WalkDir(source.FS(), "refs", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.Type().IsRegular():
			return nil
		}
		text, err := v.read(source, path, maxRef)
		if err != nil {
			return err
		}
		v.bytes += int64(len(path))
		return v.ref(path, strings.TrimSpace(text))
	})
}

// ref takes a ref that is one.
func (v *view) ref(name, id string) error {
	if !regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`).MatchString(id) || !strings.HasPrefix(name, "refs/") ||
		strings.ContainsRune(name, ' ') || hasControl(name) {
		return nil
	}
	v.refs[name] = id
	if len(v.refs) > maxRefs {
		return errors.New("it has too many refs")
	}
	return nil
}
