package vm

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// guest has the guest's init and programs.
//
//go:embed guest
var guest embed.FS

// spare is how much can be written to the input disk.
const spare = 256 << 20

// writeInput makes the disk that the guest sees as /vm: guest's files and a plan, beside what lies in dir already.
func writeInput(ctx context.Context, dir, plan, image string) error {
	if err := os.CopyFS(dir, guest); err != nil {
		return fmt.Errorf("make input disk: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plan.sh"), []byte(plan), 0o644); err != nil {
		return fmt.Errorf("make input disk: %w", err)
	}
	size, err := sizeOf(dir)
	if err != nil {
		return fmt.Errorf("make input disk: %w", err)
	}
	program, err := find(mke2fs)
	if err != nil {
		return fmt.Errorf("make input disk: %w", err)
	}
	// A quarter more for the file system itself.
	kilobytes := (size + size/4 + spare) >> 10
	cmd := exec.CommandContext(ctx, program, "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", dir, image, fmt.Sprintf("%dk", kilobytes))
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := run(cmd); err != nil {
		return fmt.Errorf("make input disk: %w: %s", err, strings.TrimSpace(output.String()))
	}
	return nil
}

// sizeOf gives the space that the files of a tree take, in bytes.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		const block = 4096
		size += (info.Size() + 2*block - 1) / block * block
		return nil
	})
	return size, err
}

// copySource copies the working tree, without what Git keeps and without what was built, so that a test finds in the
// guest what it finds here.
func copySource(root, target string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		to := filepath.Join(target, relative)
		switch {
		case notSource(relative):
			return skip(d)
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type() == fs.ModeSymlink:
			return copyLink(path, to)
		case d.Type().IsRegular():
			return copyFile(path, to)
		default:
			return nil
		}
	})
}

// notSource tells what tests do not read.
func notSource(relative string) bool {
	return slices.Contains([]string{".git", ".dev", "bin", "dist"}, relative)
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody works in the tree: it was there a moment ago.
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		_ = target.Close()
		return err
	}
	return target.Close()
}
