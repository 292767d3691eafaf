package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

var (
	_ volume.Templater = (*Driver)(nil)

	validTemplate = regexp.MustCompile(`^[a-zA-Z0-9]{1,64}$`)
)

func templateName(name string) (string, error) {
	if !validTemplate.MatchString(name) {
		return "", fmt.Errorf("%q names no template: it needs 1 to 64 letters and digits", name)
	}
	return templatePrefix + name, nil
}

// KeepTemplate makes a read-only thin copy of a volume with staged content. It is not active: nothing reads it but LVM.
func (d *Driver) KeepTemplate(ctx context.Context, id, name string) error {
	if err := check(ctx, id); err != nil {
		return err
	}
	lock := d.lock(id)
	lock.RLock()
	defer lock.RUnlock()
	if err := d.keepTemplate(ctx, id, name); err != nil {
		return fmt.Errorf("make a template of volume %s: %w", id, err)
	}
	return nil
}

func (d *Driver) keepTemplate(ctx context.Context, id, name string) error {
	target, err := templateName(name)
	if err != nil {
		return err
	}
	at, err := d.withOpened(ctx, id, (*volume.Opened).Position)
	if err != nil {
		return err
	}
	marker, err := volume.ReadMarker(d.named(id))
	if err != nil {
		return err
	}
	if at != volume.Staged || marker.Content == nil {
		return fmt.Errorf("its content is not staged, or not finished: %w", volume.ErrUnfinished)
	}
	release, err := d.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	if _, there := r.templates[name]; there {
		return nil
	}
	most := allocated(r.volumes[id])
	if err := errors.Join(d.mayView(r), d.admit(r, most)); err != nil {
		return err
	}
	return d.copy(ctx, nameOf(id), target, tagTemplate,
		"--permission", "r", "--setactivationskip", "y", "--activate", "n", "--addtag", tagBytes+strconv.FormatInt(most, 10))
}

// allocated is what an active thin volume has of the pool, at most: LVM says so in hundredths of a percent.
func allocated(l logical) int64 {
	return min(l.size, rounded(int64(math.Ceil(float64(l.size)*(l.data+0.01)/100))))
}

// promised is what a template takes at most: it is not active, so LVM does not say.
func (l logical) promised() int64 {
	for _, tag := range l.tags {
		if text, ok := strings.CutPrefix(tag, tagBytes); ok {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				return min(n, l.size)
			}
		}
	}
	return l.size
}

// Templates returns all templates in the pool.
func (d *Driver) Templates(ctx context.Context) ([]volume.Template, error) {
	r, err := d.recent(ctx)
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	list := make([]volume.Template, 0, len(r.templates))
	for _, name := range sorted(r.templates) {
		list = append(list, volume.Template{Name: name, Bytes: r.templates[name].promised()})
	}
	return list, nil
}

// CloneTemplate makes a volume by a thin copy of a template.
func (d *Driver) CloneTemplate(
	ctx context.Context, name string, spec volume.Spec, marker func(volume.Marker, string) (volume.Marker, error),
) (volume.Info, error) {
	if _, err := templateName(name); err != nil {
		return volume.Info{}, err
	}
	from := func(r report) (logical, error) {
		l, there := r.templates[name]
		if !there {
			return l, fmt.Errorf("template %s: %w", name, volume.ErrNotFound)
		}
		return l, nil
	}
	info, err := d.cloneOf(ctx, spec, from, func(v *volume.Opened) error { return remark(ctx, v, marker) })
	if err != nil {
		return volume.Info{}, fmt.Errorf("make volume %s from template %s: %w", spec.ID, name, err)
	}
	return info, nil
}

// remark gives a clone a marker of its own, in place of its template's.
func remark(ctx context.Context, v *volume.Opened, marker func(volume.Marker, string) (volume.Marker, error)) error {
	info := volume.Info{ID: v.ID, Dir: v.Dir}
	m, err := volume.ReadMarker(info)
	if err != nil {
		return err
	}
	at, err := v.Position()
	if err == nil && at != volume.Staged {
		err = fmt.Errorf("%w: what its marker names is not staged", volume.ErrOtherContent)
	}
	if err != nil {
		return err
	}
	if m, err = marker(m, volume.PathIn(v.Dir, at)); err != nil {
		return err
	}
	if err := v.Restage(ctx); err != nil {
		return err
	}
	return volume.WriteMarker(info, m)
}

// DropTemplate removes a template. What volumes share with it stays theirs.
func (d *Driver) DropTemplate(ctx context.Context, name string) error {
	target, err := templateName(name)
	if err != nil {
		return err
	}
	r, err := d.report(ctx)
	if err == nil && r.templates[name].name == target {
		err = d.drop(ctx, target)
	}
	if err != nil {
		return fmt.Errorf("remove template %s: %w", name, err)
	}
	return nil
}
