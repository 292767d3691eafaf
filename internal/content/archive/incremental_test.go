package archive_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// backups makes backups of one tree, each on top of the one before.
type backups struct {
	t     *testing.T
	dir   string
	store *packStore
	last  *archive.Result
}

// begin makes a tree and its first backup.
func begin(t *testing.T, script string) *backups {
	t.Helper()
	b := &backups{t: t, dir: diskDir(t), store: newPackStore()}
	sh(t, b.dir, script)
	b.calm()
	b.next(nil)
	return b
}

// calm waits until nothing in the tree is so new that another change could leave no trace.
func (b *backups) calm() {
	b.t.Helper()
	NewWithT(b.t).Eventually(func() time.Duration { return time.Since(newest(b.t, b.dir)) }, "5s", "5ms").Should(BeNumerically(">", 45*time.Millisecond))
}

// newest is the newest ctime of anything but the root.
func newest(t *testing.T, dir string) time.Time {
	t.Helper()
	var newest time.Time
	NewWithT(t).Expect(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if at := time.Unix(st.Ctim.Sec, st.Ctim.Nsec); path != dir && at.After(newest) {
			newest = at
		}
		return err
	})).To(Succeed())
	return newest
}

// next makes the next backup and checks it against the tree: what it says, and what a restore brings back.
func (b *backups) next(edit func(o *archive.CreateOptions)) *archive.Result {
	b.t.Helper()
	g := NewWithT(b.t)
	o := archive.CreateOptions{Sink: b.store, Source: b.store}
	if b.last != nil {
		o.Parent, o.Index = &b.last.Root, b.last.Index
	}
	if edit != nil {
		edit(&o)
	}
	b.last = create(b.t, b.dir, o)
	full, err := archive.Digest(b.t.Context(), b.dir, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(b.last.Report).To(Equal(full), "the report is that of a full read")
	g.Expect(b.last.Root.Digest.String()).To(Equal(full.Digest))
	to := b.t.TempDir()
	_, _, err = archive.Restore(b.t.Context(), b.last.Root, to, archive.RestoreOptions{Source: b.store, Key: o.Key, HashContent: true})
	g.Expect(err).NotTo(HaveOccurred())
	expectEqualTrees(b.t, independentWalk(b.t, b.dir), independentWalk(b.t, to))
	g.Expect(archive.Verify(b.t.Context(), b.last.Root, b.store, o.Key, true, nil)).To(Succeed())
	return b.last
}

const base = `mkdir -p d/e other; echo -n 0123456789 >d/f; echo -n second-content >d/g; ln d/f other/linked; ln -s target s; mkfifo p
	head -c 5000000 /dev/urandom >d/e/large; setfattr -n user.a -v 1 d/g; touch -h -d @1000 d/f d/g s p d d/e; echo twelve bytes >other/x`

// Whatever is done to a file, the next backup has it, and reads no other one.
func TestIncremental(t *testing.T) {
	for name, c := range map[string]struct {
		change string
		read   int64 // bytes of contents
		stored bool  // contents; pages are stored whenever anything has changed
		same   bool
	}{
		"nothing":                {change: ``, same: true},
		"content":                {change: `echo -n abcdefghij >d/f`, read: 10, stored: true},
		"content, time restored": {change: `echo -n abcdefghij >d/f; touch -d @1000 d/f`, read: 10, stored: true},
		"mode":                   {change: `chmod 600 d/f`, read: 10},
		"owner":                  {change: `chown 5:6 d/f`, read: 10},
		"owner of a directory":   {change: `chown 5:6 d`},
		"mode of the root":       {change: `chmod 711 .`},
		"xattr of the root":      {change: `setfattr -n user.x -v 1 .`},
		"xattr":                  {change: `setfattr -n user.a -v 2 d/g`, read: 14},
		"xattr removed":          {change: `setfattr -x user.a d/g`, read: 14},
		"xattr of a directory":   {change: `setfattr -n user.a -v 2 d`},
		"ACL":                    {change: `setfacl -m u:5:r d/g`, read: 14},
		"time of a directory":    {change: `touch -d @7 d`},
		"time of a symlink":      {change: `touch -h -d @7 s`},
		"target of a symlink":    {change: `ln -sfn tegrat s; touch -h -d @1000 s .`},
		"link added":             {change: `ln d/g h; touch -d @1000 d`, read: 14},
		"link added before":      {change: `ln d/f a`, read: 10},
		"link removed":           {change: `rm other/linked`, read: 10},
		"first link removed":     {change: `rm d/f`, read: 10},
		"link of a FIFO":         {change: `ln p q`},
		"renamed":                {change: `mv d/g d/h`, read: 14},
		"directory renamed":      {change: `mv d dd`, read: 5000000 + 10 + 14},
		"replaced":               {change: `echo -n abcdefghij >n; touch -d @1000 n; mv n d/g; touch -d @1000 d`, read: 10, stored: true},
		"inode again":            {change: `rm d/g; echo -n econd-contents >d/g; touch -d @1000 d/g d; setfattr -n user.a -v 1 d/g`, read: 14, stored: true},
		"removed":                {change: `rm d/g; touch -d @1000 d`},
		"all removed":            {change: `rm -r d other s p`},
		"directory removed":      {change: `rm -r d/e; touch -d @1000 d`},
		"created":                {change: `echo new >n`, read: 4, stored: true},
		"copied":                 {change: `cp d/g copy`, read: 14},
		"large copied":           {change: `cp d/e/large copy`, read: 5000000},
		"large appended":         {change: `echo more >>d/e/large`, read: 5000005, stored: true},
		"truncated":              {change: `truncate -s 3 d/f`, read: 3, stored: true},
		"emptied":                {change: `: >d/f`},
		"type":                   {change: `rm d/g; mkfifo d/g; touch -d @1000 d/g d`},
		"file to directory":      {change: `rm d/g; mkdir d/g; echo x >d/g/y`, read: 2, stored: true},
		"directory to file":      {change: `rm -r d/e; echo x >d/e`, read: 2, stored: true},
		"mmap": {change: `python3 -c 'import mmap,os
f = os.open("d/f", os.O_RDWR); m = mmap.mmap(f, 10); m[3] = 88; m.close()'`, read: 10, stored: true},
		"clock stepped back": {change: `echo -n abcdefghij >d/f; touch -d @-5 d/f`, read: 10, stored: true},
		"moved root":         {change: `mv "$PWD" "$PWD.moved"; mv "$PWD.moved" "$PWD"`, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, base)
			before := b.last
			g.Expect(before.Unchanged).To(BeFalse())
			g.Expect(before.BytesRead).To(BeEquivalentTo(5000000 + 10 + 14 + 13))
			b.store.reset()
			sh(t, b.dir, c.change)
			b.calm()
			r := b.next(nil)
			g.Expect(r.BytesRead).To(Equal(c.read))
			g.Expect(r.Unchanged).To(Equal(c.same))
			if c.same {
				g.Expect(r.Stored).To(BeZero())
				g.Expect(r.Root).To(Equal(before.Root))
				return
			}
			g.Expect(r.NewPacks).To(HaveLen(1))
			g.Expect(r.Table).NotTo(Equal(before.Table))
			if !c.stored {
				g.Expect(r.Stored).To(BeNumerically("<", 2000), "only a page")
			}
			g.Expect(b.next(nil).Unchanged).To(BeTrue())
			g.Expect(b.last.BytesRead).To(BeZero())
		})
	}
}

// What was written in the tick of the clock in which the backup before looked is read again, even if nothing shows.
func TestIncrementalRacy(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, base)
	name := filepath.Join(b.dir, "d/f")
	g.Expect(os.WriteFile(name, []byte("9876543210"), 0o644)).To(Succeed())
	r := b.next(nil)
	g.Expect(r.BytesRead).To(BeEquivalentTo(10))
	r = b.next(nil) // all this takes less than a tick, or more, but it is always right
	g.Expect(r.Unchanged).To(BeTrue())
	g.Expect(r.Stored).To(BeZero())
	b.calm()
	g.Expect(b.next(nil).Unchanged).To(BeTrue())
	g.Expect(b.next(nil).BytesRead).To(BeZero(), "now it is known not to have changed")
}

func TestUnchangedNeedsNoRequest(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, base)
	b.calm()
	r := create(t, b.dir, archive.CreateOptions{Parent: &b.last.Root, Index: b.last.Index})
	g.Expect(r.Unchanged).To(BeTrue())
	g.Expect(r.Index).To(BeIdenticalTo(b.last.Index))
	g.Expect(r.Report).To(Equal(b.last.Report))
	g.Expect(r.Root).To(Equal(b.last.Root))
}

// Without an index, or not trusting it, everything is read, and nothing is stored that the parent has.
func TestReread(t *testing.T) {
	for name, edit := range map[string]func(*archive.CreateOptions){
		"no index":        withoutIndex,
		"told to":         func(o *archive.CreateOptions) { o.Reread = true },
		"another's index": func(o *archive.CreateOptions) { o.Index = begin(t, `echo other >x`).last.Index },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := begin(t, base+`; truncate -s 9M sparse; echo end >>sparse`)
			first := b.last
			r := b.next(edit)
			g.Expect(r.BytesRead).To(Equal(first.BytesRead))
			g.Expect(r.Unchanged).To(BeTrue())
			g.Expect(r.Stored).To(BeZero())
			g.Expect(r.Root).To(Equal(first.Root))
			sh(t, b.dir, `chmod 711 d`)
			r = b.next(edit)
			g.Expect(r.Unchanged).To(BeFalse())
			g.Expect(r.Stored).To(BeNumerically("<", 2000))
			g.Expect(b.next(nil).BytesRead).To(BeZero())
		})
	}
}

// A backup on another node, or after the index was lost, starts from what a restore says.
func TestFirstBackupAfterRestore(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, base)
	to := t.TempDir()
	_, ix, err := archive.Restore(t.Context(), b.last.Root, to, archive.RestoreOptions{Source: b.store})
	g.Expect(err).NotTo(HaveOccurred())
	r := create(t, to, archive.CreateOptions{Parent: &b.last.Root, Index: ix})
	g.Expect(r.Unchanged).To(BeTrue())
}

// Content that is stored already is not stored again, wherever it turns up.
func TestDedup(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `mkdir a; for i in $(seq 300); do head -c 20000 /dev/urandom >a/$i; done; head -c 9000000 /dev/urandom >large; cp -r a copy; cp large again`)
	g.Expect(b.last.Stored).To(BeNumerically("<", 15_200_000), "copies in the same run")
	for _, change := range []string{`mv a b`, `cp -r b c; rm -r b`, `cp large l2; rm large again; mkdir x; mv l2 x/large`, `rm -r copy c; `} {
		sh(t, b.dir, change)
		r := b.next(nil)
		g.Expect(r.Unchanged).To(BeFalse())
		g.Expect(r.Stored).To(BeNumerically("<", 100_000), change)
	}
	g.Expect(b.last.Packs).NotTo(BeEmpty())
	g.Expect(b.last.Packs[0].Live).To(BeNumerically("<", b.last.Packs[0].Size*2/3), "the copies that are gone are dead")
}

// The pages of directories that nothing has happened to are those of the parent.
func TestOnlyPagesWithChangesAreStored(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `for i in $(seq 50); do mkdir d$i; (cd d$i; touch $(seq 100)); done`)
	first := b.last
	sh(t, b.dir, `echo x >d25/50`)
	r := b.next(nil)
	g.Expect(r.Packs).To(HaveLen(2))
	g.Expect(r.Packs[0].ID).To(Equal(first.Packs[0].ID))
	g.Expect(r.Packs[0].Live).To(BeNumerically(">", first.Packs[0].Live*3/4))
	g.Expect(r.Stored).To(BeNumerically("<", first.Stored/4))
	sh(t, b.dir, `rm d25/50; touch d25/50`)
	b.next(nil)
	sh(t, b.dir, `rm -r d1 d50`)
	b.next(nil)
}

func TestEncrypted(t *testing.T) {
	g := NewWithT(t)
	b := &backups{t: t, dir: t.TempDir(), store: newPackStore()}
	sh(t, b.dir, base+`; echo very-secret-content >secret-name`)
	key := testKey(t, "5e")
	with := func(o *archive.CreateOptions) { o.Key = key }
	b.calm()
	b.next(with)
	for _, data := range b.store.packs {
		g.Expect(string(data)).NotTo(ContainSubstring("secret"))
	}
	g.Expect(string(b.last.Table)).NotTo(ContainSubstring("other"))
	sh(t, b.dir, `echo more >n`)
	b.calm()
	g.Expect(b.next(with).BytesRead).To(BeEquivalentTo(5))
	g.Expect(b.next(with).Unchanged).To(BeTrue())
	_, err := archive.Create(t.Context(), b.dir, archive.CreateOptions{Sink: b.store, Source: b.store, Parent: &b.last.Root})
	g.Expect(err).To(HaveOccurred(), "the parent cannot be read without the key")
}

func withoutIndex(o *archive.CreateOptions) { o.Index = nil }

func TestPacksSayWhatIsLive(t *testing.T) {
	g := NewWithT(t)
	b := begin(t, `head -c 40000000 /dev/urandom >a; head -c 1000 /dev/urandom >b`)
	g.Expect(b.last.Packs).To(HaveLen(2))
	for _, p := range b.last.Packs {
		g.Expect(b.store.packs[p.ID]).To(HaveLen(int(p.Size)))
		g.Expect(p.Live).To(BeNumerically("~", p.Size, 2000))
	}
	sh(t, b.dir, `rm a`)
	r := b.next(nil)
	live := map[int64]bool{}
	for _, p := range r.Packs {
		live[p.Live] = true
	}
	g.Expect(slices.Max(slices.Collect(maps.Keys(live)))).To(BeNumerically("<", 4_300_000), "one block with b in it")
}
