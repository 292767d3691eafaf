package archive_test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
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
