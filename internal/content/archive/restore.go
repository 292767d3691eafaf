package archive

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/faults"
)

// maxWriters bounds the workers, and with them the descriptors: each may hold 140, for two paths of 256 KiB.
const maxWriters = 7

// RestoreOptions say what is restored and how.
type RestoreOptions struct {
	Source Source
	Key    *format.Key // nil: the backup is not encrypted
	// Paths are what is wanted, from the root of the tree: files, or directories with all that is in them. The directories
	// that they are in are made, too. None: everything.
	Paths []string
	// Salvage leaves out what is damaged and names it in Report.Unreadable, instead of failing.
	Salvage bool
	// HashContent verifies the hash of every file as well. What is stored is verified in any case, so this can only find a
	// mistake of what made the backup; it takes a quarter more time.
	HashContent bool
	// Connections bounds the requests that run at once; 0 is 8. A store on this machine needs no more than 1, which saves
	// the memory of the others.
	Connections int
	// Memory is what large buffers are taken from; nil: there is enough.
	Memory *memory.Budget
	// Progress is told the running totals; it may be nil.
	Progress Progress
	// SkipOwner leaves everything to the user who restores: for those who are not root. Bits that lend the owner's rights
	// (setuid, setgid, capabilities) are left out with the owner.
	SkipOwner bool
}

// Restore writes the tree of a backup into an empty directory that nobody else can reach. Every byte is verified before it
// is written. It does not flush anything to disk: the caller does that once for all.
//
// The report has the digest and the counts of the backup; with Paths, the counts are those of what was made, and there is no
// digest. The index describes the new tree; it is nil if that is not the whole tree of the backup. After an error the content
// of the directory is undefined.
func Restore(ctx context.Context, root Root, dir string, o RestoreOptions) (Report, *Index, error) {
	share, err := o.Memory.Join(ctx, rangeSize+writerMemory)
	if err != nil {
		return Report{}, nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	defer share.Close()
	r := &restorer{root: root, o: o, share: share}
	if err := r.open(dir); err != nil {
		return Report{}, nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	err = r.run(ctx)
	if err != nil {
		_ = unix.Fchownat(r.fd, "", int(r.owner[0]), int(r.owner[1]), unix.AT_EMPTY_PATH) // as it was
	}
	if closeErr := r.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return r.report, nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	return r.report, r.index(), nil
}

// restorer restores one backup.
type restorer struct {
	root  Root
	o     RestoreOptions
	share *memory.Share
	fd    int // of the directory
	uid   uint32
	gid   uint32
	tree  uint64 // see [identity]

	owner [2]uint32 // of the directory, before

	plan  *plan
	table []format.PageRef
	pages [][]byte // as stored
	hands []*hand

	ix   *Index
	left []atomic.Int32 // pieces to come of each large file
	full chan struct{}  // told when there is much to write out

	mu      sync.Mutex
	dirty   int64 // bytes written since full was told
	report  Report
	lost    map[uint32]bool // entries that are not made: salvage only
	foreign bool            // something is not as in the backup, because an ordinary user restored it
}

// hand is what one worker works with.
type hand struct {
	*cursor
	other   *cursor // for links between directories
	decoder *format.Decoder
	share   *memory.Share
	buf     []byte // for frames
	raw     []byte // the frame at hand
	files   int64
	bytes   int64
}

func (r *restorer) open(dir string) error {
	fd, err := openRoot(dir)
	if err != nil {
		return err
	}
	r.fd, r.uid, r.gid = fd, uint32(unix.Geteuid()), uint32(unix.Getegid())
	if err := r.inRoot(r.look); err != nil {
		_ = unix.Close(fd)
		return err
	}
	return nil
}

// inRoot calls do with the directory opened for reading.
func (r *restorer) inRoot(do func(fd int) error) error {
	fd, err := unix.Openat(r.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return do(fd)
}

// look makes sure that the directory is empty and can be written to.
func (r *restorer) look(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Faccessat(fd, ".", unix.W_OK, 0); err != nil {
		return err
	}
	r.owner = [2]uint32{st.Uid, st.Gid}
	var err error
	if r.tree, err = identity(fd); err != nil {
		return err
	}
	return expectEmpty(fd)
}

// adopt makes sure that the directory passes nothing on to what is made in it, and that its owner cannot move that meanwhile.
func (r *restorer) adopt(fd int) error {
	if err := clearXattrs(xattrsOf(fd)); err != nil {
		return err
	}
	if r.uid == 0 {
		if err := unix.Fchown(fd, 0, 0); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

func expectEmpty(dir int) error {
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		if _, _, names := unix.ParseDirent(buf[:n], 1, nil); len(names) > 0 {
			return fmt.Errorf("the directory is not empty (%s is there): restore into an empty one", display(names[0]))
		}
	}
}

func (r *restorer) close() error {
	for _, h := range r.hands {
		h.close()
		h.other.close()
		h.decoder.Close()
	}
	return unix.Close(r.fd)
}

func (r *restorer) run(ctx context.Context) error {
	if err := r.load(ctx); err != nil {
		return err
	}
	debug.FreeOSMemory() // what decoding took is nothing of what writing needs: large buffers
	if err := r.checkSpace(); err != nil {
		return err
	}
	if err := r.inRoot(r.adopt); err != nil { // whatever can be known to fail has failed before
		return err
	}
	if err := r.hire(); err != nil {
		return err
	}
	if err := r.writeTree(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"others", r.makeOthers}, {"links", r.makeLinks}, {"dirs", r.finishDirs}, {"settle", r.settle},
	} {
		faults.Point("archive.restore." + step.name)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	r.count()
	return nil
}

// hire makes the workers that there is memory for; the first one is certain.
func (r *restorer) hire() error {
	for i := range min(runtime.GOMAXPROCS(0), maxWriters) {
		if i > 0 {
			if _, ok := r.share.Grow(writerMemory); !ok {
				break
			}
		}
		d, err := format.NewDecoder()
		if err != nil {
			return fmt.Errorf("start decoder: %w", err)
		}
		r.hands = append(r.hands, &hand{cursor: newCursor(r.fd, r.plan), other: newCursor(r.fd, r.plan), decoder: d, share: r.share})
	}
	return nil
}

// load makes the plan.
func (r *restorer) load(ctx context.Context) error {
	want, err := newSelection(r.o.Paths)
	if err != nil {
		return err
	}
	if r.table, err = openTable(r.root, r.o.Key); err != nil {
		return err
	}
	b := newPlanner(r.root, want)
	b.mend, b.mended = r.o.Salvage, func(path string) { r.damaged(path, errLostDir) }
	if want != nil {
		return r.loadSome(ctx, b, want)
	}
	pr := pageReader{source: r.o.Source, key: r.o.Key, share: r.share, refs: r.table, limit: r.o.Connections, gap: rangeGap, keep: true, salvage: r.o.Salvage}
	pr.each = func(p readPage) error {
		r.pages = append(r.pages, p.stored)
		return r.addPage(b, p)
	}
	if err := pr.run(ctx); err != nil {
		return err
	}
	if r.plan, err = b.finish(); err != nil {
		return err
	}
	if r.report.UnreadableCount > 0 { // pages are lost
		return nil
	}
	r.ix = newIndex(r.root.Table, r.pages, r.tree, len(r.plan.dirs)+int(r.plan.entries))
	return nil
}

// checkDigest makes sure that the pages are those of the backup. It runs while directories are made.
func (r *restorer) checkDigest(ctx context.Context) error {
	if r.ix == nil {
		return nil
	}
	sum, err := r.plan.digest(ctx)
	if err != nil {
		return err
	}
	if sum != r.root.Digest {
		return damagedf("the pages are not those of the backup: their digest is %v instead of %v", sum, r.root.Digest)
	}
	r.report.Digest = sum.String()
	return nil
}

// addPage adds a page to the plan, or names it if it is damaged and that is to be lived with.
func (r *restorer) addPage(b *planner, p readPage) error {
	switch {
	case p.err == nil:
		return b.add(p.page)
	case fatal(p.err):
		return p.err
	}
	r.damaged(r.table[p.number].First, p.err)
	return nil
}

// writeTree makes the directories, and the files with content. While directories are made the first frames are read and
// decoded already: of a hand that uses other parts than the making does.
func (r *restorer) writeTree(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.left = make([]atomic.Int32, len(r.plan.large))
	ready := make(chan struct{})
	var wg sync.WaitGroup
	together := func(do func() error) {
		wg.Go(func() {
			if err := do(); err != nil {
				cancel(err)
			}
		})
	}
	r.full = make(chan struct{}, 1)
	together(func() error {
		defer close(r.full)
		return r.writeContent(ctx, ready)
	})
	together(func() error { return r.writeOut(ctx) })
	together(func() error { return r.checkDigest(ctx) })
	if err := r.prepare(ctx); err != nil {
		cancel(err)
	}
	close(ready)
	wg.Wait()
	return context.Cause(ctx)
}

// prepare makes all that content goes into.
func (r *restorer) prepare(ctx context.Context) error {
	if err := r.makeDirs(ctx); err != nil {
		return err
	}
	faults.Point("archive.restore.prepared")
	return r.makeLarge(ctx)
}

// each runs do for 0 to n-1, in chunks of neighbours that go to any of the workers.
func (r *restorer) each(ctx context.Context, n int, do func(h *hand, i int) error) error {
	const chunk = 64
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, h := range r.hands[:min(len(r.hands), n/chunk+1)] {
		wg.Go(func() {
			for {
				from := int(next.Add(chunk)) - chunk
				if from >= n || ctx.Err() != nil {
					return
				}
				for i := from; i < min(from+chunk, n); i++ {
					if err := do(h, i); err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// settle waits until the clock that files are stamped with has moved on: what changes from now on has another time than what
// was made, so that the index can be trusted. Where only seconds count, that would take too long.
func (r *restorer) settle(ctx context.Context) error {
	if r.ix == nil {
		return nil
	}
	made, err := stampClock()
	for now := made; err == nil && now == made; now, err = stampClock() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.ix.distrust(time.Unix(made.Unix()).Add(-coarseWindow), true)
	return err
}

func stampClock() (unix.Timespec, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return now, fmt.Errorf("read clock: %w", err)
	}
	return now, nil
}
