package archive_test

import (
	"errors"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

func TestDiff(t *testing.T) {
	const base = `mkdir -p d/e; echo one >d/f; ln d/f g; ln -s t s; mkfifo p; echo x >d/e/x; setfattr -n user.a -v 1 d/f; find . -exec touch -h -d @1000 {} +`
	const fix = `; find . -exec touch -h -d @1000 {} +`
	for name, tt := range map[string]struct {
		change string
		want   []string
	}{
		"nothing":          {``, nil},
		"content":          {`echo two >d/e/x` + fix, []string{"changed d/e/x (content)"}},
		"content and time": {`echo two >d/e/x; touch -d @2000 d/e/x`, []string{"changed d/e/x (content, time)"}},
		"both names":       {`echo two >d/f` + fix, []string{"changed g (content)", "changed d/f (content)"}},
		"name":             {`mv p q` + fix, []string{"removed p", "added q"}},
		"mode":             {`chmod 600 d/e/x`, []string{"changed d/e/x (mode)"}},
		"owner":            {`chown 5 d/e/x; chgrp 6 d/e`, []string{"changed d/e/ (owner)", "changed d/e/x (owner)"}},
		"time":             {`touch -d @1000.000000001 d/e/x`, []string{"changed d/e/x (time)"}},
		"directory":        {`touch -d @1001 d`, []string{"changed d/ (time)"}},
		"root":             {`chmod 700 .`, []string{"changed ./ (mode)"}},
		"target":           {`ln -sfn u s` + fix, []string{"changed s (target)"}},
		"attributes":       {`setfattr -n user.a -v 2 d/f; setfattr -n user.b -v 1 d`, []string{"changed g (attributes)", "changed d/ (attributes)", "changed d/f (attributes)"}},
		"link broken":      {`cp -a g h; mv h g` + fix, []string{"changed g (links)", "changed d/f (links)"}},
		"type":             {`rm p; mknod p c 0 0; chmod 644 p` + fix, []string{"changed p (type)"}},
		"added":            {`mkdir d/n; echo >d/n/y; echo >z` + fix, []string{"added z", "added d/n/", "added d/n/y"}},
		"removed":          {`rm -r d/e` + fix, []string{"removed d/e/", "removed d/e/x"}},
		"file for a tree":  {`rm -r d/e; echo >d/e` + fix, []string{"added d/e", "removed d/e/", "removed d/e/x"}},
		"tree for a file":  {`rm s; mkdir s; echo >s/y` + fix, []string{"removed s", "added s/", "added s/y"}},
		"everything": {`rm -r d g s p` + fix, []string{
			"removed g", "removed p", "removed s", "removed d/", "removed d/f", "removed d/e/", "removed d/e/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, s := t.TempDir(), newPackStore()
			sh(t, dir, base)
			from := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
			if tt.change != "" {
				sh(t, dir, tt.change)
			}
			to := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
			var found []string
			collect := func(c archive.Change) error { found = append(found, c.String()); return nil }
			g.Expect(archive.Diff(t.Context(), from.Root, to.Root, s, nil, collect)).To(Succeed())
			g.Expect(found).To(Equal(tt.want))
			found = nil
			g.Expect(archive.Diff(t.Context(), to.Root, from.Root, s, nil, collect)).To(Succeed())
			g.Expect(found).To(HaveLen(len(tt.want)))
			g.Expect(archive.Diff(t.Context(), to.Root, to.Root, s, nil, func(archive.Change) error { return errors.New("differs") })).To(Succeed())
		})
	}
}

// Pages that both backups share are not read.
func TestDiffReadsOnlyWhatDiffers(t *testing.T) {
	g := NewWithT(t)
	dir, s := t.TempDir(), newPackStore()
	sh(t, dir, `for i in $(seq 40); do mkdir d$i; for j in $(seq 80); do echo $i $j >d$i/f$j; done; done`)
	from := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
	sh(t, dir, `echo changed >d20/f20`)
	to := create(t, dir, archive.CreateOptions{Sink: s, Source: s, Parent: &from.Root})
	s.reset()
	var found []string
	g.Expect(archive.Diff(t.Context(), from.Root, to.Root, s, nil, func(c archive.Change) error { found = append(found, c.String()); return nil })).To(Succeed())
	g.Expect(found).To(Equal([]string{"changed d20/f20 (content, time)"}))
	g.Expect(s.requests).To(Equal(2))
	g.Expect(s.bytes).To(BeNumerically("<", 60_000))
	g.Expect(archive.Diff(t.Context(), from.Root, from.Root, s, nil, nil)).To(Succeed())
	g.Expect(s.requests).To(Equal(2))
}

func TestDiffEndsWithErrors(t *testing.T) {
	g := NewWithT(t)
	b, c := wide(t, 30, 30), wide(t, 30, 31)
	from := b.root(1000)
	c.store = b.store
	to := c.root(1000)
	enough := errors.New("enough")
	n := 0
	g.Expect(archive.Diff(t.Context(), from, to, b.store, nil, func(archive.Change) error { n++; return enough })).To(MatchError(enough))
	g.Expect(n).To(Equal(1))
	delete(b.store.packs, to.Packs[len(to.Packs)-1].ID)
	err := archive.Diff(t.Context(), from, to, b.store, nil, func(archive.Change) error { n++; return nil })
	g.Expect(err).To(MatchError(ContainSubstring("no such object")))
	g.Expect(n).To(BeNumerically("<", 100), "what could not be read is no difference")
	_, other := tiny(t, testKey(t, "ab"))
	g.Expect(archive.Diff(t.Context(), from, other, b.store, nil, nil)).To(MatchError(format.ErrKey))
}
