package quota

import (
	"errors"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	// block is the usual size of a block. Limits are whole blocks.
	block = 4096
	// largestBlock is what rounding by the filesystem can add.
	largestBlock = 64 << 10
	// What is being filled may take this part more, and this much at least.
	fillShare, fillBytes, fillInodes = 64, 1 << 20, 64
)

// exactly gives the limits of published content.
func exactly(spec volume.Spec) limits {
	l := limits{bytes: spec.Size / block * block, inodes: spec.Inodes}
	if spec.Size > 0 {
		l.bytes = max(l.bytes, block) // 0 would be none
	}
	return l
}

// filling gives the limits of content that users have not seen yet.
func filling(spec volume.Spec) limits {
	l := exactly(spec)
	if l.bytes > 0 {
		l.bytes += max(l.bytes/fillShare, fillBytes) / block * block
	}
	if l.inodes > 0 {
		l.inodes += max(l.inodes/fillShare, fillInodes)
	}
	return l
}

// due gives the limits that a volume shall have now.
func due(v *volume.Opened, spec volume.Spec) (limits, error) {
	at, err := v.Position()
	if err != nil {
		return limits{}, err
	}
	if at == volume.Published || at == volume.Withdrawn {
		return exactly(spec), nil
	}
	return filling(spec), nil
}

// limit sets the limits of a volume.
func limit(v *volume.Opened, id uint32, spec volume.Spec) error {
	l, err := due(v, spec)
	if err != nil {
		return err
	}
	return setLimits(v.Descriptor(), id, l)
}

// limitAsRecorded sets the limits that the volume was made or resized with.
func limitAsRecorded(v *volume.Opened, id uint32) error {
	spec, err := v.Spec()
	if err != nil {
		return err
	}
	return limit(v, id, spec)
}

// limitedTo fails unless limits are in force that are not above those of a volume.
func limitedTo(v *volume.Opened, id uint32, spec volume.Spec) error {
	want, err := due(v, spec)
	if err != nil {
		return err
	}
	is, err := accountOf(v.Descriptor(), id)
	if err != nil {
		return err
	}
	if !within(is.limits.bytes, want.bytes, largestBlock) || !within(is.limits.inodes, want.inodes, 0) {
		return fmt.Errorf("project %d has limits of %d bytes and %d inodes, not %d and %d",
			id, is.limits.bytes, is.limits.inodes, want.bytes, want.inodes)
	}
	return nil
}

func within(is, want, slack int64) bool { return want == 0 || is > 0 && is <= want+slack }

// assigned returns the project of a volume.
func assigned(v *volume.Opened) (uint32, error) {
	p, err := projectOf(v.Descriptor())
	if err == nil && p.id == 0 {
		err = fmt.Errorf("%w: volume %s has no project id", volume.ErrUnlimited, v.Dir)
	}
	return p.id, err
}

// positions are where content may lie.
func positions() []volume.Position {
	return []volume.Position{volume.Published, volume.Withdrawn, volume.Staged}
}

func holdsContent(v *volume.Opened) bool {
	for _, at := range positions() {
		if f, err := v.OpenContent(at); err == nil {
			_ = f.Close()
			return true
		}
	}
	return false
}

// enclose puts content, which must be empty, into a project.
func enclose(v *volume.Opened, id uint32, at volume.Position) error {
	f, err := v.OpenContent(at)
	if err != nil {
		return err
	}
	defer f.Close()
	return setProject(f, project{id: id, inherit: true})
}

// bound fails if sealed content does not lie in the volume's project: it was made by another driver, or its owner took it out.
func bound(v *volume.Opened, id uint32) error {
	at, err := v.Position()
	if err != nil || at == volume.None || at == volume.Staged {
		return err // what is staged is enclosed, or staged anew
	}
	f, err := v.OpenContent(at)
	if errors.Is(err, volume.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := projectOf(f)
	if err == nil && p != (project{id: id, inherit: true}) {
		err = &volume.EscapedError{ID: v.ID, Reason: fmt.Sprintf("its top directory has project id %d (inherited: %t) and not %d", p.id, p.inherit, id)}
	}
	return err
}
