package archive

import (
	"context"
	"maps"
	"slices"
)

// loadSome reads only the pages that are needed for the paths, in as few requests as can be.
func (r *restorer) loadSome(ctx context.Context, b *planner, want *selection) error {
	pages := map[int]readPage{}
	for numbers := want.pages(r.table); len(numbers) > 0; numbers = want.rest(r.table, pages) {
		if err := r.readSome(ctx, numbers, pages); err != nil {
			return err
		}
	}
	for _, number := range slices.Sorted(maps.Keys(pages)) {
		if err := r.addPage(b, pages[number]); err != nil {
			return err
		}
	}
	if err := want.missing(); err != nil {
		return err
	}
	plan, err := b.finish()
	r.plan = plan
	return err
}

// readSome adds the pages of these numbers.
func (r *restorer) readSome(ctx context.Context, numbers []int, pages map[int]readPage) error {
	pr := pageReader{source: r.o.Source, key: r.o.Key, share: r.share, refs: pick(r.table, numbers), limit: r.o.Connections, gap: rangeSize, atOnce: true, salvage: r.o.Salvage}
	pr.each = func(p readPage) error {
		p.number = numbers[p.number]
		pages[p.number] = p
		return nil
	}
	return pr.run(ctx)
}
