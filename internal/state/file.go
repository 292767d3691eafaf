package state

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// readFile reads a regular file of bounded size; O_NONBLOCK because opening a FIFO that lies there would wait for ever.
func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, maxFile)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// writeJSON makes a file durable under a temporary name in dir, calls place to give it its final one, and makes that
// durable too.
func writeJSON(root *os.Root, dir, name string, value any, place func(from, to string) error) error {
	data, err := encode(value)
	if err != nil {
		return err
	}
	temp := path.Join(dir, tempPrefix+rand.Text())
	defer func() { _ = root.Remove(temp) }()
	if err := writeSynced(root, temp, data); err != nil {
		return err
	}
	if err := place(temp, name); err != nil {
		return err
	}
	return syncDir(root, dir)
}

func encode(value any) ([]byte, error) {
	data, err := json.MarshalIndent(value, "", "  ")
	return append(data, '\n'), err
}

func writeSynced(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func syncDir(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func readDir(root *os.Root, dir string) ([]fs.DirEntry, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// removeTemporary removes what a crash left of an identity that was being written.
func removeTemporary(root *os.Root) error {
	files, err := readDir(root, ".")
	if err != nil {
		return err
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), tempPrefix) {
			continue
		}
		if err := root.Remove(f.Name()); err != nil && !readOnly(err) {
			return err
		}
	}
	return nil
}
