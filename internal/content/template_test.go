package content_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// templating is a driver that keeps templates: copies, here.
type templating struct {
	volume.Driver

	f    *fixture
	dir  string
	full bool  // there is room for nothing but templates
	fail error // of a clone

	meanwhile func() // something happens while a clone is being made
}

// templating gives a node a driver that keeps templates, and lets its class have some.
func (n *node) templating(most int) *templating {
	d := &templating{Driver: n.Volumes["default"], f: n.f, dir: filepath.Join(n.disk, "kept")}
	n.f.Expect(os.MkdirAll(d.dir, 0o700)).To(Succeed())
	n.Volumes["default"], n.Templates = d, map[string]int{"default": most}
	return d
}

// templated is a node that may keep so many templates and has that of the first of some snapshots, with which a workspace has begun.
func templated(t *testing.T, most int, snapshots ...string) (*fixture, *node, *templating) {
	t.Helper()
	f := newFixture(t)
	f.snapshots(snapshots...)
	n := f.node("node-b")
	d := n.templating(most)
	n.begin("uid-2", snapshots[0])
	return f, n, d
}

func (d *templating) at(name string) string { return filepath.Join(d.dir, name) }

func (d *templating) Templates(context.Context) ([]volume.Template, error) {
	entries, err := os.ReadDir(d.dir)
	var list []volume.Template
	for _, e := range entries {
		list = append(list, volume.Template{Name: e.Name()})
	}
	return list, err
}

func (d *templating) KeepTemplate(ctx context.Context, id, name string) error {
	info, err := d.Get(ctx, id)
	if err != nil {
		return err
	}
	return exec.CommandContext(ctx, "cp", "-a", info.Dir, d.at(name)).Run()
}

func (d *templating) Ensure(ctx context.Context, spec volume.Spec) (volume.Info, error) {
	if d.full && len(d.names()) > 0 {
		return volume.Info{}, volume.ErrCapacity
	}
	return d.Driver.Ensure(ctx, spec)
}

func (d *templating) CloneTemplate(
	ctx context.Context, name string, spec volume.Spec, marker func(volume.Marker, string) (volume.Marker, error),
) (volume.Info, error) {
	of, err := volume.ReadMarker(volume.Info{Dir: d.at(name)})
	if err = errors.Join(err, d.fail); err != nil {
		return volume.Info{}, err
	}
	info, err := d.Ensure(ctx, spec)
	if err != nil {
		return info, err
	}
	if d.meanwhile != nil {
		d.meanwhile()
	}
	path := d.Path(spec.ID, volume.Staged)
	if err := exec.CommandContext(ctx, "cp", "-a", filepath.Join(d.at(name), ".ws", "staging"), path).Run(); err != nil {
		return info, err
	}
	m, err := marker(of, path)
	if err != nil {
		return info, errors.Join(err, d.Remove(ctx, spec.ID))
	}
	return info, volume.WriteMarker(info, m)
}

func (d *templating) DropTemplate(_ context.Context, name string) error {
	return os.RemoveAll(d.at(name))
}

func (d *templating) names() []string {
	list, err := d.Templates(d.f.ctx)
	d.f.Expect(err).NotTo(HaveOccurred())
	names := []string{}
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names
}

// begin makes a workspace that begins with a snapshot, and returns its content and whether it was read from the store.
func (n *node) begin(uid, snapshot string) (c volume.Content, read bool) {
	n.f.t.Helper()
	r := fillRequest(1)
	r.UID, r.Name, r.Initializer.SnapshotID = uid, uid, named(snapshot)
	n.f.Expect(n.Prepare(n.f.ctx, r, 1<<20, 0)).To(Succeed())
	calls := n.counted(func() { n.f.Expect(n.try(r)).To(Succeed()) })
	o, err := n.Observe(n.f.ctx, r.Subject)
	n.f.Expect(err).NotTo(HaveOccurred())
	n.f.Expect(o.Position).To(Equal(volume.Published))
	n.f.Expect(o.Marker.Prepared).To(BeNil())
	n.f.Expect(files(n.f, o.Volume.Path)).To(Equal("file=" + snapshot))
	return *o.Marker.Content, len(matching(calls, "/p/")) > 0
}

// snapshots pins trees that have one file each, with the snapshot's name in it.
func (f *fixture) snapshots(names ...string) {
	f.t.Helper()
	a := f.node("node-a")
	a.fill(1)
	for _, name := range names {
		a.write("file", name)
		_, err := a.Snapshot(f.ctx, saveRequest(1), name, true)
		f.Expect(err).NotTo(HaveOccurred())
	}
}

// The second workspace of a snapshot reads nothing from the store, also after a restart without a journal, and its first backup
// begins with the snapshot.
func TestSecondWorkspaceOfASnapshotIsCloned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.snapshots("one")
	b := f.node("node-b")
	d := b.templating(2)
	first, read := b.begin("uid-2", "one")
	f.Expect([]any{first.Cloned, read, len(d.names())}).To(Equal([]any{false, true, 1}))
	f.Expect(first.Template).To(Equal(d.names()[0]))
	for n, uid := range []string{"uid-3", "uid-4"} {
		second, read := b.begin(uid, "one")
		f.Expect([]any{second.Cloned, read, second.NotCloned}).To(Equal([]any{true, false, ""}))
		f.Expect([]any{second.Source, second.SnapshotID, second.Files, second.Bytes}).To(
			Equal([]any{content.SourceSnapshot, "one", first.Files, first.Bytes}))
		if n == 0 {
			b.forget()
			b.templating(2)
			_, err := b.Recover(f.ctx)
			f.Expect(err).NotTo(HaveOccurred())
		}
	}
	f.Expect(b.TemplateStats()).To(Equal(content.TemplateStats{Cloned: 1, Kept: map[string]int{"default": 1}}))

	r := saveRequest(1)
	r.UID, r.Name = "uid-4", "uid-4"
	f.Expect(b.Backup(f.ctx, r)).To(Succeed())
	o, err := b.Observe(f.ctx, r.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect([]any{o.Journal.Backup.Name, o.Journal.Backup.Uploaded}).To(Equal([]any{"1.1", int64(0)}))
}

// A workspace whose newest backup equals a snapshot begins with that one's template, too.
func TestWorkspaceComesBackFromATemplate(t *testing.T) {
	t.Parallel()
	f, b, _ := templated(t, 1, "one")
	s := content.SaveRequest{Subject: content.Subject{UID: "uid-2", Namespace: "team", Name: "uid-2", Class: "default", Claim: 1}}
	f.Expect(b.Release(f.ctx, s, idle)).To(Equal("1.1"))
	_, err := b.Remove(f.ctx, s.Subject, content.Consent{}, idle)
	f.Expect(err).NotTo(HaveOccurred())

	r := fillRequest(2)
	r.UID, r.Name = "uid-2", "uid-2"
	f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(Succeed())
	f.Expect(b.try(r)).To(Succeed())
	o, err := b.Observe(f.ctx, r.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect([]any{o.Marker.Content.Source, o.Marker.Content.Backup, o.Marker.Content.Cloned}).To(Equal([]any{content.SourceBackup, "1.1", true}))
}

// What has the same files in another domain is other content.
func TestTemplatesStayInTheirDomain(t *testing.T) {
	t.Parallel()
	f, b, d := templated(t, 5, "one")
	other := content.Subject{UID: "uid-3", Namespace: "other", Name: "web", Class: "default", Claim: 1}
	f.Expect(b.Provision(f.ctx, other, 1<<20, 0)).To(Succeed())
	f.Expect(b.try(content.FillRequest{Subject: other, InUse: idle})).To(Succeed())
	f.Expect(os.WriteFile(filepath.Join(b.Volumes["default"].Path("uid-3", volume.Published), "file"), []byte("one"), 0o644)).To(Succeed())
	_, err := b.Snapshot(f.ctx, content.SaveRequest{Subject: other}, "one", true)
	f.Expect(err).NotTo(HaveOccurred())

	r := content.FillRequest{Subject: other, InUse: idle, Initializer: content.Initializer{SnapshotID: named("one")}}
	r.UID, r.Name = "uid-4", "uid-4"
	f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(Succeed())
	f.Expect(b.TemplateStats().Missed).To(BeEquivalentTo(2))
	f.Expect(b.try(r)).To(Succeed())
	f.Expect(d.names()).To(HaveLen(2))
}

// Whatever is wrong with a template, the content is restored, and the marker says why.
func TestTemplateThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(f *fixture, d *templating)
		why   string
		left  int
	}{
		"the volume would be smaller": {func(_ *fixture, d *templating) { d.fail = volume.ErrShrink }, "a volume never shrinks", 1},
		"the driver fails":            {func(_ *fixture, d *templating) { d.fail = errBroken }, "broken", 1},
		"it holds something else": {func(f *fixture, d *templating) {
			info := volume.Info{Dir: d.at(d.names()[0])}
			m, err := volume.ReadMarker(info)
			f.Expect(err).NotTo(HaveOccurred())
			m.Content.Template = "other"
			f.Expect(volume.WriteMarker(info, m)).To(Succeed())
		}, "the template holds other content than it should", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, b, d := templated(t, 2, "one")
			test.spoil(f, d)
			c, read := b.begin("uid-3", "one")
			f.Expect([]any{c.Cloned, read}).To(Equal([]any{false, true}))
			f.Expect(c.NotCloned).To(ContainSubstring(test.why))
			f.Expect(d.names()).To(HaveLen(test.left))
			d.fail = nil
			c, _ = b.begin("uid-4", "one")
			f.Expect(c.Cloned).To(BeTrue(), "what was wrong was put right")
		})
	}
}

// What a volume began with is used only if it is what is needed in the end, and untouched; nothing half-written is taken for it.
func TestPreparedContentIsVerified(t *testing.T) {
	for name, change := range map[string]func(f *fixture, b *node, r *content.FillRequest){
		"another snapshot": func(_ *fixture, _ *node, r *content.FillRequest) { r.Initializer.SnapshotID = named("two") },
		"another directory": func(f *fixture, b *node, _ *content.FillRequest) {
			path := b.Volumes["default"].Path("uid-3", volume.Staged)
			f.Expect(os.Rename(path, path+".old")).To(Succeed())
			f.Expect(os.Mkdir(path, 0o700)).To(Succeed())
			f.Expect(os.RemoveAll(path + ".old")).To(Succeed())
		},
		"no snapshot": func(_ *fixture, _ *node, r *content.FillRequest) { r.Initializer.SnapshotID = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, b, _ := templated(t, 2, "one", "two")
			r := fillRequest(1)
			r.UID, r.Name, r.Initializer.SnapshotID = "uid-3", "uid-3", named("one")
			f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(Succeed())
			before, err := b.Observe(f.ctx, r.Subject)
			f.Expect(err).NotTo(HaveOccurred())
			f.Expect(before.Marker.Prepared).NotTo(BeNil())
			f.Expect(before.Finished()).To(BeFalse())
			change(f, b, &r)
			want := map[string]string{"another snapshot": "file=two", "another directory": "file=one", "no snapshot": ""}[name]
			b.fault = func(op, key string) error {
				if op == "get" && strings.Contains(key, "/p/") {
					return errBroken
				}
				return nil
			}
			if want != "" {
				f.Expect(b.try(r)).To(MatchError(errBroken))
			}
			b.fault = nil
			f.Expect(b.try(r)).To(Succeed())
			o, err := b.Observe(f.ctx, r.Subject)
			f.Expect(err).NotTo(HaveOccurred())
			f.Expect(files(f, o.Volume.Path)).To(Equal(want))
			f.Expect(o.Marker.Content.Cloned).To(BeFalse())
		})
	}
}

// There are never more templates than allowed: those go that were not used for longest.
func TestTemplatesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.snapshots("one", "two", "three", "four")
	b := f.node("node-b")
	d := b.templating(2)
	next := 2
	begin := func(snapshot string) (cloned bool, name string) {
		b.later(60 * next)
		c, _ := b.begin(fmt.Sprintf("uid-%d", next), snapshot)
		next++
		return c.Cloned, c.Template
	}
	_, one := begin("one")
	_, two := begin("two")
	begin("one")
	_, three := begin("three")
	f.Expect(d.names()).To(ConsistOf(one, three), "two was used before one")
	f.Expect(d.names()).NotTo(ContainElement(two))
	_, four := begin("four")
	f.Expect(d.names()).To(ConsistOf(three, four))
	f.Expect(b.EvictTemplate(f.ctx, "default")).To(BeTrue())
	f.Expect(d.names()).To(ConsistOf(four))
	f.Expect(os.ReadDir(filepath.Join(b.disk, "templates"))).To(HaveLen(1), "indexes go with their templates")

	b.Templates["default"] = 0
	_, err := b.Recover(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(d.names()).To(BeEmpty(), "the configuration changed")
	f.Expect(b.EvictTemplate(f.ctx, "default")).To(BeFalse())
	cloned, _ := begin("four")
	f.Expect(cloned).To(BeFalse())
	f.Expect(d.names()).To(BeEmpty())
	f.Expect(b.TemplateStats()).To(Equal(content.TemplateStats{
		Cloned: 1, Missed: 4, Made: 4, Evicted: 4, Kept: map[string]int{"default": 0},
	}))
}

// A volume is worth more than templates.
func TestTemplatesMakeRoom(t *testing.T) {
	t.Parallel()
	f, b, d := templated(t, 2, "one", "two")
	b.begin("uid-3", "two")
	d.full = true
	r := fillRequest(1)
	r.UID, r.Name = "uid-4", "uid-4"
	f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(Succeed())
	f.Expect(d.names()).To(BeEmpty())

	d.full = false
	b.begin("uid-6", "one")
	b.begin("uid-7", "two")
	f.Expect(b.CanEvict("default")).To(BeTrue())
	f.Expect(b.Evict(f.ctx, "default", func(volume.Capacity) bool { return len(d.names()) == 1 })).To(Equal(1))
	f.Expect(b.Evict(f.ctx, "default", func(volume.Capacity) bool { return false })).To(Equal(1), "there are no more")
	b.Volumes["default"] = alwaysFull{d.Driver}
	r.UID = "uid-5"
	f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(MatchError(volume.ErrCapacity))
	f.Expect(slices.Sorted(slices.Values(d.names()))).To(BeEmpty())
}

// trimming is a driver with templates whose volumes can give something back.
type trimming struct {
	*templating

	log  []string
	fail error
}

func (d *trimming) Trim(context.Context) error {
	d.log = append(d.log, fmt.Sprintf("trimmed beside %d templates", len(d.names())))
	return d.fail
}

// What volumes do not need any more goes before templates.
func TestVolumesAreTrimmedBeforeTemplatesGo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.snapshots("one", "two")
	b := f.node("node-b")
	d := &trimming{templating: b.templating(2)}
	b.Volumes["default"] = d
	b.begin("uid-2", "one")
	b.begin("uid-3", "two")
	enough := func(is bool) func(volume.Capacity) bool { return func(volume.Capacity) bool { return is } }
	f.Expect(b.Evict(f.ctx, "default", enough(true))).To(BeZero())
	f.Expect(d.log).To(BeEmpty(), "there is room")
	f.Expect(b.Evict(f.ctx, "default", func(volume.Capacity) bool { return len(d.log) > 0 })).To(BeZero())
	f.Expect(d.log).To(Equal([]string{"trimmed beside 2 templates"}))
	d.fail = errBroken
	n, err := b.Evict(f.ctx, "default", enough(false))
	f.Expect([]any{n, len(d.names())}).To(Equal([]any{2, 0}), "all that can go does, whatever fails")
	f.Expect(err).To(MatchError(errBroken))
}

type alwaysFull struct{ volume.Driver }

func (alwaysFull) Ensure(context.Context, volume.Spec) (volume.Info, error) {
	return volume.Info{}, volume.ErrCapacity
}
