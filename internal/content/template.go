package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// templateOf names what a commit says of a tree: the same name means the same content, of the same domain, described by the same
// pages. So a snapshot, and a backup that found the tree equal to it, have one name.
func templateOf(c history.Commit) string {
	h := sha256.New()
	for _, part := range []string{c.Domain, c.Tree.Digest, string(c.Table)} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

// templater returns the driver of a class and how many templates it may keep, 0 for none.
func (k *Keeper) templater(class string) (volume.Templater, int) {
	driver, ok := k.Volumes[class].(volume.Templater)
	if !ok {
		return nil, 0
	}
	return driver, k.Templates[class]
}

// Prepare does what [Keeper.Provision] does. Where there is no volume yet, and the node has a template of what Fill is going to restore,
// the volume begins with a copy of it. Whether that is what the workspace needs is decided by Fill, which restores otherwise; so nothing
// that goes wrong with a template is an error. When the disk has no room, templates make some.
func (k *Keeper) Prepare(ctx context.Context, r FillRequest, size, inodes int64) error {
	ctx = fair.With(ctx, r.UID, fair.Urgent)
	spec := volume.Spec{ID: r.UID, Size: size, Inodes: inodes}
	if err := k.clone(ctx, r, spec); err != nil {
		k.unclonable(r.Subject, err)
	}
	for {
		err := k.Provision(ctx, r.Subject, size, inodes)
		if !errors.Is(err, volume.ErrCapacity) {
			return err
		}
		if gone, dropErr := k.EvictTemplate(ctx, r.Class); !gone || dropErr != nil {
			return errors.Join(err, dropErr)
		}
	}
}

// clone makes the volume from a template, if there is a fitting one.
func (k *Keeper) clone(ctx context.Context, r FillRequest, spec volume.Spec) error {
	driver, most := k.templater(r.Class)
	if most == 0 || r.Rewind != "" {
		return nil
	}
	if o, err := k.Observe(ctx, r.Subject); err != nil || o.Exists() {
		return nil //nolint:nilerr // Provision says what is wrong.
	}
	name, err := k.wanted(ctx, r)
	if err != nil || name == "" {
		return nil //nolint:nilerr // Fill says what is wrong with the store.
	}
	if err := k.record(r.Subject, func(*state.Entry) {}); err != nil {
		return err
	}
	_, err = driver.CloneTemplate(ctx, name, spec, func(of volume.Marker, path string) (volume.Marker, error) {
		return k.cloned(ctx, r.Subject, name, of, path)
	})
	switch {
	case errors.Is(err, volume.ErrNotFound):
		k.templates.missed.Add(1)
		return nil
	case errors.Is(err, volume.ErrOtherContent):
		return errors.Join(err, k.dropTemplate(ctx, driver, name))
	case err != nil:
		return err
	}
	faults.Point("prepare.cloned")
	return k.lendIndex(name, r.UID)
}

// wanted returns the template of what Fill is going to restore as far as that can be told now, "" if it is not going to restore.
func (k *Keeper) wanted(ctx context.Context, r FillRequest) (string, error) {
	domain, log, err := k.log(ctx, r.Subject)
	if err != nil {
		return "", err
	}
	c, _, err := log.Current(ctx)
	if errors.Is(err, history.ErrNoBackup) {
		if r.Initializer.SnapshotID == nil {
			return "", nil
		}
		var id string
		if id, err = r.Initializer.SnapshotID(ctx); err != nil {
			return "", err
		}
		var pinned history.PinnedCommit
		pinned, err = domain.Pinned(ctx, id)
		c = pinned.Commit
	}
	if err != nil {
		return "", err
	}
	return templateOf(c), nil
}

// cloned makes the marker of a clone from the one in its template, which must hold what it is named after.
func (k *Keeper) cloned(ctx context.Context, s Subject, name string, of volume.Marker, path string) (volume.Marker, error) {
	if of.Content == nil || of.Content.Template != name {
		return volume.Marker{}, fmt.Errorf("%w: its marker does not name %s", volume.ErrOtherContent, name)
	}
	m, err := k.marker(s)
	if err != nil {
		return m, err
	}
	prepared, err := volume.Seal(ctx, path, volume.Content{
		Template: name, Cloned: true, Files: of.Content.Files, Bytes: of.Content.Bytes, Finished: k.Now(),
	})
	m.Prepared = &prepared
	return m, err
}

// unclonable remembers why a workspace could not begin with a template.
func (k *Keeper) unclonable(s Subject, err error) {
	k.templates.failed.Add(1)
	k.templates.reasons.Store(s.UID, err.Error())
}

// prepared returns the content that the volume began with, if it is what c says and nobody has touched it. Other such content is given
// up first, so that nothing half-written is ever taken for it.
func (f *filling) prepared(c history.Commit) (volume.Content, bool, error) {
	p := f.o.Marker.Prepared
	if p == nil {
		return volume.Content{}, false, nil
	}
	there, err := p.IsAt(f.driver.Path(f.r.UID, volume.Staged))
	if err != nil {
		return volume.Content{}, false, err
	}
	if there && c.ID != "" && p.Template == templateOf(c) {
		f.k.templates.cloned.Add(1)
		return *p, true, nil
	}
	f.k.unclonable(f.r.Subject, fmt.Errorf("%w than what is needed now", volume.ErrOtherContent))
	f.o.Marker.Prepared = nil
	return volume.Content{}, false, volume.WriteMarker(f.o.Volume, f.o.Marker)
}

// keepTemplate makes a template of a snapshot that has just been restored, before users see it. It is a service to those who come
// next: a failure stops nothing.
func (f *filling) keepTemplate(ctx context.Context, c volume.Content) {
	driver, most := f.k.templater(f.r.Class)
	if most == 0 || c.Source != SourceSnapshot || c.Cloned {
		return
	}
	if err := f.k.addTemplate(ctx, driver, f.r.Subject, c.Template, most); err != nil {
		f.k.templates.failed.Add(1)
		return
	}
	f.k.templates.made.Add(1)
	faults.Point("fill.templated")
}

func (k *Keeper) addTemplate(ctx context.Context, driver volume.Templater, s Subject, name string, most int) error {
	k.templates.changing.Lock()
	defer k.templates.changing.Unlock()
	list, err := driver.Templates(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(t volume.Template) bool { return t.Name == name })
	for k.byUse(list); len(list) >= most; list = list[1:] {
		if err := k.dropTemplate(ctx, driver, list[0].Name); err != nil {
			return err
		}
	}
	// First the index: one without a template is swept.
	if err := k.keepIndex(s.UID, name); err != nil {
		return err
	}
	faults.Point("fill.template.index")
	if err := driver.KeepTemplate(ctx, s.UID, name); err != nil {
		return err
	}
	k.templates.count(s.Class, len(list)+1)
	return nil
}

// byUse orders templates by when they were used last. One whose index is gone is worth least.
func (k *Keeper) byUse(list []volume.Template) {
	used := make(map[string]time.Time, len(list))
	for _, t := range list {
		if st, err := os.Stat(k.templateIndex(t.Name)); err == nil {
			used[t.Name] = st.ModTime()
		}
	}
	slices.SortStableFunc(list, func(a, b volume.Template) int { return used[a.Name].Compare(used[b.Name]) })
}

// EvictTemplate removes the template of a class that was not used for longest, and says whether there was any: what the disk needs comes
// before what makes it fast.
func (k *Keeper) EvictTemplate(ctx context.Context, class string) (bool, error) {
	driver, ok := k.Volumes[class].(volume.Templater)
	if !ok {
		return false, nil
	}
	k.templates.changing.Lock()
	defer k.templates.changing.Unlock()
	list, err := driver.Templates(ctx)
	if err != nil || len(list) == 0 {
		return false, err
	}
	k.byUse(list)
	err = k.dropTemplate(ctx, driver, list[0].Name)
	if err == nil {
		k.templates.count(class, len(list)-1)
	}
	return err == nil, err
}

func (k *Keeper) dropTemplate(ctx context.Context, driver volume.Templater, name string) error {
	if err := driver.DropTemplate(ctx, name); err != nil {
		return err
	}
	faults.Point("template.dropped")
	k.templates.evicted.Add(1)
	_ = os.Remove(k.templateIndex(name)) // one that stays is swept at the next start
	return nil
}

// templateIndex is where the index of a template lies. Its time says when the template was last used.
func (k *Keeper) templateIndex(name string) string {
	return filepath.Join(k.Area.Dir(), "templates", name)
}

// keepIndex keeps the index of a workspace for the template that is made of its volume: inodes are the same in all its clones.
func (k *Keeper) keepIndex(uid, name string) error {
	path := k.templateIndex(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := relink(k.indexPath(uid), path); err != nil {
		return err
	}
	now := k.Now()
	return os.Chtimes(path, now, now)
}

// lendIndex gives a clone the index of its template, and notes that this was used.
func (k *Keeper) lendIndex(name, uid string) error {
	path := k.templateIndex(name)
	now := k.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		return nil //nolint:nilerr // The first backup reads everything then.
	}
	if err := os.MkdirAll(filepath.Dir(k.indexPath(uid)), 0o700); err != nil {
		return err
	}
	return relink(path, k.indexPath(uid))
}

// relink makes another name for a file that is only ever replaced, never written to.
func relink(path, name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Link(path, name)
}

// sweepTemplates removes templates that are too many, and indexes whose templates are gone. A disk that is not known to be ours has none
// of ours; while one is missing, no index is known to be of no use.
func (k *Keeper) sweepTemplates(ctx context.Context) error {
	there, missing := map[string]bool{}, false
	for class, driver := range k.Volumes {
		driver, ok := driver.(volume.Templater)
		if !ok {
			continue
		}
		if _, ours := k.identified.Load(class); !ours {
			missing = true
			continue
		}
		list, err := driver.Templates(ctx)
		for k.byUse(list); err == nil && len(list) > k.Templates[class]; list = list[1:] {
			err = k.dropTemplate(ctx, driver, list[0].Name)
		}
		if err != nil {
			return fmt.Errorf("volume class %s: %w", class, err)
		}
		k.templates.count(class, len(list))
		for _, t := range list {
			there[t.Name] = true
		}
	}
	entries, err := os.ReadDir(filepath.Dir(k.templateIndex("x")))
	if err != nil || missing {
		return nil //nolint:nilerr // There is none yet.
	}
	for _, e := range entries {
		if !there[e.Name()] {
			_ = os.Remove(k.templateIndex(e.Name()))
		}
	}
	return nil
}
