package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const (
	contentDir   = "content"
	stagingDir   = "staging"
	withdrawnDir = "withdrawn"
)

// Contents does for a [Driver] what concerns content, given a way to open a volume. Drivers embed it.
type Contents struct {
	// Dir returns the directory of a volume, whether there is one or not.
	Dir func(id string) string
	// Open opens a volume; ErrNotFound if there is none.
	Open func(ctx context.Context, id string) (*Opened, error)
}

// PathIn returns where content in a position lies in a volume's directory, "" for None.
func PathIn(dir string, at Position) string {
	switch at {
	case Published:
		return filepath.Join(dir, contentDir)
	case Withdrawn:
		return filepath.Join(dir, metaDir, withdrawnDir)
	case Staged:
		return filepath.Join(dir, metaDir, stagingDir)
	case None:
	}
	return ""
}

// Path returns where content in a position lies.
func (c Contents) Path(id string, at Position) string { return PathIn(c.Dir(id), at) }

// Position tells where the content is.
func (c Contents) Position(ctx context.Context, id string) (at Position, err error) {
	err = c.With(ctx, id, "find content of", func(v *Opened) (err error) {
		at, err = v.Position()
		return err
	})
	return at, err
}

// Stage makes an empty staging directory.
func (c Contents) Stage(ctx context.Context, id string) (string, error) {
	err := c.With(ctx, id, "stage content of", func(v *Opened) error { return v.Stage(ctx) })
	if err != nil {
		return "", err
	}
	return c.Path(id, Staged), nil
}

// Publish moves finished content to where users find it.
func (c Contents) Publish(ctx context.Context, id string) error {
	return c.With(ctx, id, "publish content of", (*Opened).Publish)
}

// Withdraw moves published content out of the users' reach.
func (c Contents) Withdraw(ctx context.Context, id string) error {
	return c.With(ctx, id, "withdraw content of", (*Opened).Withdraw)
}

// Discard removes content that users do not see.
func (c Contents) Discard(ctx context.Context, id string, at Position) error {
	return c.With(ctx, id, fmt.Sprintf("discard %s content of", at), func(v *Opened) error { return v.Discard(ctx, at) })
}

// OpenPublished opens the content that users see.
func (c Contents) OpenPublished(ctx context.Context, id string) (dir *os.File, err error) {
	err = c.With(ctx, id, "open content of", func(v *Opened) (err error) {
		dir, err = v.OpenPublished()
		return err
	})
	return dir, err
}

// Holds says whether an open directory is the finished content of a volume.
func (c Contents) Holds(ctx context.Context, id string, dir *os.File) (is bool, err error) {
	err = c.With(ctx, id, "recognize content of", func(v *Opened) (err error) {
		is, err = v.Holds(dir)
		return err
	})
	return is, err
}

// With opens a volume for one call; errors say what is done ("publish content of") and name the volume.
func (c Contents) With(ctx context.Context, id, what string, do func(*Opened) error) error {
	v, err := c.Open(ctx, id)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := do(v); err != nil {
		return fmt.Errorf("%s volume %s: %w", what, id, err)
	}
	return nil
}
