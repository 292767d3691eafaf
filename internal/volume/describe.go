package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const descriptionOf = "volume.json"

// description is what was asked for, kept in the volume.
type description struct {
	Size   int64 `json:"size"`
	Inodes int64 `json:"inodes"`
}

// Spec returns what the volume shall be; of one that was not finished only the ID.
func (v *Opened) Spec() (Spec, error) {
	spec := Spec{ID: v.ID}
	if v.meta == nil {
		return spec, nil
	}
	data, err := readSmall(int(v.meta.Fd()), descriptionOf)
	if errors.Is(err, unix.ENOENT) {
		return spec, nil
	}
	name := filepath.Join(v.Dir, metaDir, descriptionOf)
	if err != nil {
		return spec, fmt.Errorf("read %s: %w", name, err)
	}
	var is description
	if err := json.Unmarshal(data, &is); err != nil {
		return spec, fmt.Errorf("read %s: %w: %w", name, ErrDamaged, err)
	}
	spec.Size, spec.Inodes = is.Size, is.Inodes
	return spec, nil
}

// Finish makes what a volume's directory needs, and records what it shall be unless that is recorded already.
func (v *Opened) Finish(spec Spec) error {
	if err := mkdir(int(v.dir.Fd()), metaDir, 0o711); err != nil {
		return err
	}
	if v.meta == nil {
		if err := v.enter(); err != nil {
			return err
		}
	}
	if err := removeTemporary(v.meta); err != nil {
		return err
	}
	_, err := readSmall(int(v.meta.Fd()), descriptionOf)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return v.describe(spec)
}

// Growable returns nil if the volume may become what spec says; ErrShrink if that is less than it is, ErrNotFound if it was not
// finished.
func (v *Opened) Growable(spec Spec) error {
	now, err := v.Spec()
	if err != nil {
		return err
	}
	if shrinks(now.Size, spec.Size) || shrinks(now.Inodes, spec.Inodes) {
		return fmt.Errorf("resize volume %s from %d bytes and %d inodes to %d and %d: %w",
			v.ID, now.Size, now.Inodes, spec.Size, spec.Inodes, ErrShrink)
	}
	if v.meta == nil {
		return fmt.Errorf("resize volume %s, which was never finished: %w", v.ID, ErrNotFound)
	}
	return nil
}

// Resize records what a volume shall be from now on, if it may become that, see [Opened.Growable].
func (v *Opened) Resize(spec Spec) error {
	if err := v.Growable(spec); err != nil {
		return err
	}
	now, err := v.Spec()
	if err != nil || now == (Spec{ID: v.ID, Size: spec.Size, Inodes: spec.Inodes}) {
		return err
	}
	if err := v.describe(spec); err != nil {
		return fmt.Errorf("resize volume %s: %w", v.ID, err)
	}
	return nil
}

// shrinks compares limits. One where there was none is none of a shrink here, because nothing was ever promised.
func shrinks(from, to int64) bool { return from > 0 && to > 0 && to < from }

func (v *Opened) describe(spec Spec) error {
	data, err := json.Marshal(description{Size: spec.Size, Inodes: spec.Inodes})
	if err != nil {
		return err
	}
	return replaceFile(int(v.meta.Fd()), descriptionOf, append(data, '\n'))
}

// removeTemporary removes what a crash left of files that were being written.
func removeTemporary(meta *os.File) error {
	names, err := meta.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, tempPrefix) {
			continue
		}
		if err := unix.Unlinkat(int(meta.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
