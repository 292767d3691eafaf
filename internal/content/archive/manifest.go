package archive

import (
	"context"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// manifest is what is left to be stored when all files are read.
type manifest struct {
	*creation
	assembler *assembler
	press     *press
	refs      []format.PageRef
	stored    [][]byte // the pages
}

// unchanged reports whether the pages are those of the parent.
func (m *manifest) unchanged() bool {
	if m.parent == nil || len(m.press.outs) != len(m.parent.refs) {
		return false
	}
	for i, out := range m.press.outs {
		if out.reuse != i {
			return false
		}
	}
	return true
}

// discard ends a backup that has found nothing new.
func (m *manifest) discard(ctx context.Context) (*Result, error) {
	m.packer.discard()
	packs, err := m.packer.finish(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range packs { // what was read again lay elsewhere for a moment
		m.result.Stored += p.Size
	}
	return m.creation.unchanged(m.index(m.parent.root.Table, m.parent.stored)), nil
}

// index describes the tree as it was when the scan began, which was before everything was flushed. What a clock says that was
// set back meanwhile is earlier.
func (m *manifest) index(table []byte, pages [][]byte) *Index {
	ix := &Index{table: table, pages: pages, tree: m.tree.id, stamps: m.assembler.stamps}
	ix.seal(earlier(m.tree.began, time.Now()))
	return ix
}

// earlier compares what the wall clock said.
func earlier(a, b time.Time) time.Time {
	if a, b = a.Round(0), b.Round(0); b.Before(a) {
		return b
	}
	return a
}

func (m *manifest) store(ctx context.Context) (*Result, error) {
	if err := m.storePages(ctx); err != nil {
		return nil, err
	}
	faults.Point("archive.create.pages")
	packs, err := m.packer.finish(ctx)
	if err != nil {
		return nil, err
	}
	enc, err := format.NewEncoder()
	if err != nil {
		return nil, err
	}
	table, err := enc.Table(m.options.Key, m.refs)
	if err != nil {
		return nil, fmt.Errorf("make the page table: %w", err)
	}
	r := &m.result
	r.Table, r.Root.Digest = table, m.press.digest
	m.report(m.press.digest)
	m.packs(packs)
	r.Index = m.index(table, m.stored)
	return r, nil
}

// storePages puts the pages behind the contents, those of the parent aside.
func (m *manifest) storePages(ctx context.Context) error {
	for _, out := range m.press.outs {
		if out.reuse >= 0 {
			m.refs = append(m.refs, m.parent.refs[out.reuse])
			m.stored = append(m.stored, m.parent.stored[out.reuse])
			continue
		}
		f, stored, err := m.packer.put(ctx, format.FramePage, out.raw, out.zstd, true)
		if err != nil {
			return err
		}
		out.ref.Frame = f
		m.refs = append(m.refs, out.ref)
		m.stored = append(m.stored, stored)
		out.zstd = nil
	}
	return nil
}

// packs lists the packs that are needed, the parent's first. Those that were stored and are not needed are left out: they
// will be collected.
func (m *manifest) packs(stored []Pack) {
	live := m.assembler.usage.live(m.places.frames.list)
	for i := range m.refs {
		f := &m.refs[i].Frame
		live[f.Pack] += int64(f.Stored)
	}
	r := &m.result
	needed := func(list []Pack) (out []Pack) {
		for _, p := range list {
			if p.Live = live[p.ID]; p.Live > 0 {
				out = append(out, p)
			}
		}
		return out
	}
	for _, p := range stored {
		r.Stored += p.Size
	}
	r.NewPacks = needed(stored)
	if m.parent != nil {
		r.Packs = needed(m.parent.root.Packs)
	}
	r.Packs = append(r.Packs, r.NewPacks...)
}
