package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

const (
	// ballast is the file that fills a store.
	ballast = "ballast"
	// away is what the name of something hidden ends with.
	away = ".away"
)

// mountStore puts the store on a tmpfs if the test asked for that.
func (w *World) mountStore() {
	w.t.Helper()
	if w.tmpfs == 0 {
		return
	}
	w.must(unix.Mount("tmpfs", w.Store, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, fmt.Sprintf("size=%d,mode=0700", w.tmpfs)))
	w.mounted = true
}

func (w *World) unmountStore() {
	if !w.mounted {
		return
	}
	if err := unix.Unmount(w.Store, unix.MNT_DETACH); err != nil {
		w.t.Errorf("unmount %s: %v", w.Store, err)
	}
	w.mounted = false
}

// Hide takes a file or directory away, as a mount that is gone.
func (w *World) Hide(path string) {
	w.t.Helper()
	w.must(os.Rename(path, path+away))
}

// Show brings it back, in the place of what is there meanwhile.
func (w *World) Show(path string) {
	w.t.Helper()
	_, err := os.Lstat(path + away)
	w.must(err)
	w.must(os.RemoveAll(path))
	w.must(os.Rename(path+away, path))
}

// HideStore makes the store unreachable.
func (w *World) HideStore() {
	w.t.Helper()
	w.Hide(w.Store)
}

// ShowStore brings it back.
func (w *World) ShowStore() {
	w.t.Helper()
	w.Show(w.Store)
}

// Packs is where the store keeps the content of all backups of the namespace.
func (w *World) Packs() string { return filepath.Join(w.Store, "d", w.Namespace, "p") }

// Backups is where the store keeps what backups there are of its workspaces.
func (w *World) Backups() string { return filepath.Join(w.Store, "d", w.Namespace, "w") }

// InitStore makes a directory that is a store.
func (w *World) InitStore(dir string) {
	w.t.Helper()
	w.must(os.MkdirAll(dir, 0o700))
	_, err := store.Init(w.t.Context(), w.openStore(dir))
	w.must(err)
}

func (w *World) openStore(dir string) store.Store {
	w.t.Helper()
	s, err := store.NewFilesystem(dir)
	w.must(err)
	return s
}

// FillStore takes all space of a store on a tmpfs.
func (w *World) FillStore() {
	w.t.Helper()
	file, err := os.OpenFile(filepath.Join(w.Store, ballast), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	defer func() { _ = file.Close() }()
	_, err = io.Copy(file, zeros{})
	if !errors.Is(err, unix.ENOSPC) {
		w.t.Fatalf("the store could not be filled: %v", err)
	}
}

// zeros never ends.
type zeros struct{}

// Read gives bytes of zero.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// DrainStore gives the space back.
func (w *World) DrainStore() {
	w.t.Helper()
	w.must(os.Remove(filepath.Join(w.Store, ballast)))
}

// FreezeStore makes a store on a tmpfs refuse every write, and go on being readable.
func (w *World) FreezeStore() {
	w.t.Helper()
	w.remount(unix.MS_RDONLY)
}

// ThawStore ends that.
func (w *World) ThawStore() {
	w.t.Helper()
	w.remount(0)
}

func (w *World) remount(flags uintptr) {
	w.t.Helper()
	// Busy while a file is being written.
	w.Eventually("the store is mounted anew", func() error {
		return unix.Mount("", w.Store, "", flags|unix.MS_REMOUNT|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "")
	})
}
