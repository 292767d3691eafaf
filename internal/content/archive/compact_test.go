package archive_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// A workspace that is backed up again and again does not need more and more packs.
func TestCompactionOfSmallPacks(t *testing.T) {
	for _, digits := range []string{"", "5e"} {
		t.Run(digits, func(t *testing.T) {
			g := NewWithT(t)
			b := &backups{t: t, dir: t.TempDir(), store: newPackStore()}
			o := archive.CreateOptions{Sink: b.store, Source: b.store}
			if digits != "" {
				o.Key = testKey(t, digits)
			}
			sh(t, b.dir, `mkdir d; seq 200 >d/static; head -c 9000000 /dev/urandom >d/large`)
			most := 0
			for i := range 80 {
				sh(t, b.dir, fmt.Sprintf(`mkdir n%d; head -c 20000 /dev/urandom >n%d/f; echo %d >changing`, i, i, i))
				if i%20 == 19 || i == 79 {
					b.calm()
					b.next(func(p *archive.CreateOptions) { p.Key = o.Key })
				} else {
					b.last = create(t, b.dir, o)
				}
				o.Parent, o.Index = &b.last.Root, b.last.Index
				most = max(most, len(b.last.Packs))
			}
			g.Expect(most).To(BeNumerically("<=", 68))
			b.calm()
			b.next(func(p *archive.CreateOptions) { p.Key = o.Key })
			b.calm()
			g.Expect(b.next(func(p *archive.CreateOptions) { p.Key = o.Key }).Unchanged).To(BeTrue())
		})
	}
}

// What is dead is left behind, a tenth of all in every run.
func TestCompactionOfDeadPacks(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `for i in $(seq -w 400); do head -c 300000 /dev/urandom >$i; done`)
	first := b.last
	sh(t, b.dir, `for i in $(seq -w 400); do case $i in ?[0-4]? | ?5[0-5]) rm $i;; esac; done`)
	share := func() int64 {
		size, live := int64(0), int64(0)
		for _, p := range b.last.Packs {
			size, live = size+p.Size, live+p.Live
		}
		return live * 100 / size
	}
	b.next(func(o *archive.CreateOptions) { o.Source = nil })
	g.Expect(share()).To(BeNumerically("<", 60), "without reading, nothing can be moved")
	for i := 0; share() < 60; i++ {
		sh(t, b.dir, fmt.Sprintf(`echo %d >changing`, i))
		g.Expect(b.next(nil).Stored).To(BeNumerically("<", first.Stored/6))
		g.Expect(i).To(BeNumerically("<", 5))
	}
	b.calm()
	g.Expect(b.next(nil).Unchanged).To(BeTrue())
}

// packBytes sums up the sizes of the packs of a backup, and what of them it needs.
func packBytes(packs []archive.Pack) (size, live int64) {
	for _, p := range packs {
		size, live = size+p.Size, live+p.Live
	}
	return size, live
}

// A new version of everything that has a fifth of the old files unchanged, here and there: none of the old frames is dead,
// and yet most of their bytes are.
func TestCompactionOfScatteredFiles(t *testing.T) {
	for _, digits := range []string{"", "5e"} {
		t.Run(digits, func(t *testing.T) {
			g := NewWithT(t)
			b := &backups{t: t, dir: t.TempDir(), store: newPackStore()}
			next := func() {
				b.next(func(o *archive.CreateOptions) {
					if digits != "" {
						o.Key = testKey(t, digits)
					}
				})
			}
			sh(t, b.dir, `mkdir a b; for i in $(seq -w 600); do head -c 100000 /dev/urandom >a/$i; done; cp a/001 a/100 b; ln a/005 b/linked`)
			b.calm()
			next()
			sh(t, b.dir, `cd a; for i in $(seq -w 600); do case $i in *[05]) ;; *) rm $i; head -c 50000 /dev/urandom >$i.new;; esac; done`)
			before, changed := b.last.Packs, int64(480*50_000)
			for run := range 6 {
				b.calm()
				b.store.reset()
				next()
				size, _ := packBytes(before)
				g.Expect(b.last.Stored-changed).To(BeNumerically("<", max(size/10, 32<<20)+100_000), "run %d", run)
				sh(t, b.dir, fmt.Sprintf(`echo %d >changing`, run))
				before, changed = b.last.Packs, 0
			}
			size, live := packBytes(b.last.Packs)
			g.Expect(live*100/size).To(BeNumerically(">=", 60), "%d of %d", live, size)
			g.Expect(live).To(BeNumerically("~", 480*50_000+120*100_000, 500_000))
		})
	}
}

// A store that cannot be read is no reason to lose a backup: what cannot be moved stays where it is.
func TestCompactionWithoutReading(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `for i in $(seq -w 400); do head -c 100000 /dev/urandom >$i; done`)
	sh(t, b.dir, `for i in $(seq -w 400); do case $i in *[05]) ;; *) rm $i;; esac; done`)
	b.calm()
	var reads atomic.Int64
	source := failingSource{func() error { reads.Add(1); return errors.New("input/output error") }}
	b.next(func(o *archive.CreateOptions) { o.Source = source })
	g.Expect(reads.Load()).To(BeNumerically(">", 0), "it was tried")
	g.Expect(b.last.Packs).To(HaveLen(3))
	sh(t, b.dir, `echo now >it-works-again`)
	b.next(nil)
	size, live := packBytes(b.last.Packs)
	g.Expect(size - live).To(BeNumerically("<", 16<<20))
}

// failingSource cannot be read.
type failingSource struct{ fail func() error }

func (s failingSource) ReadPack(context.Context, format.PackID, int64, []byte) error { return s.fail() }
