package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ballast is the file that fills a store.
const ballast = "ballast"

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

// HideStore makes the store unreachable, as a mount that is gone.
func (w *World) HideStore() {
	w.t.Helper()
	w.must(os.Rename(w.Store, w.Store+".away"))
}

// ShowStore brings it back.
func (w *World) ShowStore() {
	w.t.Helper()
	w.must(os.Rename(w.Store+".away", w.Store))
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
