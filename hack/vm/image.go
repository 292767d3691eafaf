package vm

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/hack/repository"
)

// recipe is what an image is made by.
//
//go:embed recipe
var recipe embed.FS

const (
	imagePrefix = "image-"
	// unusedAfter is how long an image of another recipe is kept.
	unusedAfter = 30 * 24 * time.Hour
)

// Image is a kernel and a root file system. It is never written.
type Image struct {
	dir   string
	cache cache
}

func (i *Image) kernel() string { return filepath.Join(i.dir, "vmlinuz") }
func (i *Image) initrd() string { return filepath.Join(i.dir, "initrd") }
func (i *Image) root() string   { return filepath.Join(i.dir, "root.img") }

// Dir gives the directory of the image. Removing it makes the next Prepare fetch Debian's newest packages.
func (i *Image) Dir() string { return i.dir }

// Prepare finds the image, or makes it (once, in two minutes or so, as root). Missing programs are installed. It must be
// called inside the repository. log gets progress.
func Prepare(ctx context.Context, log io.Writer) (*Image, error) {
	root, err := repository.Root()
	if err != nil {
		return nil, err
	}
	c, err := openCache()
	if err != nil {
		return nil, err
	}
	if err := install(ctx, root, log, qemu, mke2fs); err != nil {
		return nil, err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("find release of Debian: %w", err)
	}
	key, err := imageKey(recipe, string(release))
	if err != nil {
		return nil, err
	}
	image := &Image{dir: c.path(imagePrefix + key), cache: c}
	if err := image.make(ctx, root, log); err != nil {
		return nil, fmt.Errorf("make image of VM: %w", err)
	}
	return image, nil
}

var codename = regexp.MustCompile(`(?m)^VERSION_CODENAME=.*$`)

// imageKey names what an image depends on: its recipe and Debian's release.
func imageKey(recipe fs.FS, release string) (string, error) {
	hash := sha256.New()
	_, _ = fmt.Fprintln(hash, codename.FindString(release))
	err := fs.WalkDir(recipe, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(recipe, path)
		_, _ = fmt.Fprintf(hash, "%s %d\n%s", path, len(text), text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read recipe of image: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], nil
}

// make makes the image unless it is there. It appears by a rename, so what is there is whole.
func (i *Image) make(ctx context.Context, root string, log io.Writer) error {
	if i.exists() {
		return nil
	}
	unlock, err := i.cache.lock(ctx, "image", log)
	if err != nil {
		return err
	}
	defer unlock()
	// Somebody else may have made it while we waited.
	if i.exists() {
		return nil
	}
	if err := install(ctx, root, log, debootstrap, busybox, cpio); err != nil {
		return err
	}
	dir, done, err := i.cache.newRun(ctx, log)
	if err != nil {
		return err
	}
	defer done()
	start := time.Now()
	say(log, "making the image (once; kept in %s)", i.dir)
	if err := build(ctx, root, filepath.Join(dir, "image"), log); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, "image"), i.dir); err != nil {
		return err
	}
	say(log, "made the image in %s", since(start))
	return i.cache.removeUnused(time.Now().Add(-unusedAfter))
}

// exists also marks the image as used.
func (i *Image) exists() bool {
	now := time.Now()
	return os.Chtimes(i.dir, now, now) == nil
}

// build runs the recipe as root, in namespaces that end, with all mounts and processes in them, when it does.
func build(ctx context.Context, root, out string, log io.Writer) error {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "as-root.sh"),
		"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		filepath.Join(root, "hack", "vm", "recipe", "build.sh"), out)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, log, log
	return run(cmd)
}

// removeUnused removes images that were last used before then.
func (c cache) removeUnused(then time.Time) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasPrefix(entry.Name(), imagePrefix) || info.ModTime().After(then) {
			continue
		}
		if err := os.RemoveAll(c.path(entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
