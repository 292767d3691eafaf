package archive

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
	"wsdaemon.dev/ws-daemon/internal/faults"
	"wsdaemon.dev/ws-daemon/internal/syncfs"
)

// CreateOptions say where a backup goes and what it starts from.
type CreateOptions struct {
	// Parent is the newest backup, or the snapshot that the tree was made from. It may be nil. What it has is not stored again.
	Parent *Root
	// Index describes Parent on this node. Without it everything is read; what the parent has is not stored again all the same.
	Index *Index
	// Sink gets the new packs.
	Sink Sink
	// Source has the packs of Parent. With an Index that describes it, nothing is read from it.
	Source Source
	// Connections bounds the packs that are sent at once; 0 is 2. A store on this machine needs no more than 1: two packs
	// of half the size lie in memory then, and not three.
	Connections int
	// Memory is what large buffers are taken from; nil: there is enough.
	Memory *memory.Budget
	// Key seals the packs and the table of pages; nil: they are not encrypted.
	Key *format.Key
	// Reread reads every file, whatever the index says.
	Reread bool
	// Progress is told what was read, or found unchanged.
	Progress Progress
}

// Result is a backup that was stored, but is not committed yet.
type Result struct {
	Root
	Report
	// Unchanged says that the tree is what Parent says: nothing was stored, and Root is Parent.
	Unchanged bool
	// Stored is the size of all new packs, BytesRead that of the contents read, in bytes.
	Stored, BytesRead int64
	// NewPacks are those of Root.Packs that were stored now.
	NewPacks []Pack
	// Index describes Root. It is CreateOptions.Index if nothing about it is new.
	Index *Index
	// Disk is what the tree takes, as the scan has seen it.
	Disk DiskUsage
}

// Create stores what Parent does not have of the tree at dir, and returns what a commit needs to know. Nothing refers to the
// new packs before that. It never writes below dir, and never leaves it. A parent whose pages are damaged is none: everything
// is stored anew, so that the result needs nothing of it.
func Create(ctx context.Context, dir string, o CreateOptions) (*Result, error) {
	res, err := createFrom(ctx, dir, o)
	if o.Parent != nil && errors.Is(err, format.ErrDamaged) { // nothing else is read from a store that must not be damaged
		o.Parent, o.Index = nil, nil
		res, err = createFrom(ctx, dir, o)
	}
	if err != nil {
		return nil, fmt.Errorf("create a backup of %s: %w", dir, err)
	}
	return res, nil
}

func createFrom(ctx context.Context, dir string, o CreateOptions) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &creation{options: o, fail: cancel, store: true}
	res, err := c.run(ctx, dir)
	c.close()
	if err != nil {
		return nil, err
	}
	made := *res // a copy: the buffers are not to stay as long as the result does
	return &made, nil
}

// Unchanged returns what Create would return if that finds nothing new by names and attributes alone; nil if it has to read more, or
// to ask for something. It costs one look at the tree.
func Unchanged(ctx context.Context, dir string, o CreateOptions) (*Result, error) {
	if o.Reread || !o.Index.describes(o.Parent) {
		return nil, nil //nolint:nilnil // That is an ordinary answer.
	}
	c := &creation{options: o, glance: true}
	res, err := c.run(ctx, dir)
	c.close()
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	return res, nil
}

// Digest reads a tree completely and stores nothing, in memory from a budget, which may be nil. Its report is the one that Create
// would give.
func Digest(ctx context.Context, dir string, from *memory.Budget) (Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &creation{options: CreateOptions{Memory: from}, fail: cancel}
	res, err := c.run(ctx, dir)
	c.close()
	if err != nil {
		return Report{}, fmt.Errorf("read %s: %w", dir, err)
	}
	return res.Report, nil
}

// creation is one run of Create or Digest.
type creation struct {
	options CreateOptions
	fail    context.CancelCauseFunc
	store   bool
	glance  bool          // whatever is not known by looking at it makes it end without a result
	share   *memory.Share // nil until memory is needed
	parent  *parent
	tree    *scanTree
	links   *hardLinks
	places  *places
	packer  *packer
	reading *reading
	result  Result

	openFile func(dir int, name *byte, how *unix.OpenHow) (int, error) // set in tests
}

func (c *creation) close() {
	if c.packer != nil {
		c.packer.uploads.Wait()
	}
	if c.tree != nil {
		c.tree.close()
	}
	if c.share != nil {
		c.share.Close()
	}
}

// join waits for the memory without which nothing can be read: a pack's and a worker's, or a worker's that stores nothing.
func (c *creation) join(ctx context.Context) (*memory.Share, error) {
	if c.share != nil {
		return c.share, nil
	}
	need := int64(blockBuffer)
	if c.store {
		need = readerMemory + int64(c.options.packTarget())
	}
	var err error
	c.share, err = c.options.Memory.Join(ctx, need)
	return c.share, err
}

func (c *creation) run(ctx context.Context, dir string) (*Result, error) {
	var err error
	if c.tree, err = scan(ctx, dir); err != nil {
		return nil, err
	}
	c.result.Disk = c.tree.usage
	if c.parent, err = openParent(ctx, &c.options, c.join); err != nil {
		return nil, err
	}
	c.links = groupLinks(c.tree)
	found, err := compareTree(ctx, c.tree, c.links, c.parent)
	if err != nil {
		return nil, err
	}
	if !found.differs {
		if c.options.Progress != nil {
			c.options.Progress(found.files, found.bytes)
		}
		return c.unchanged(c.options.Index), nil
	}
	if c.glance {
		return nil, nil //nolint:nilnil // see Unchanged
	}
	if c.store {
		// A store through a mapping shows in the times of its file only if it is the first one to its page since the page was written
		// out: without this, what is stored after a file was read could leave no trace.
		if err := syncfs.Sync(ctx, c.tree.fd); err != nil {
			return nil, fmt.Errorf("write out what is in memory only: %w", err)
		}
	}
	if err := c.read(ctx, found); err != nil {
		return nil, err
	}
	return c.finish(ctx)
}

// unchanged is the result if the parent says it all.
func (c *creation) unchanged(ix *Index) *Result {
	r := &c.result
	r.Root, r.Unchanged, r.Index = *c.parent.root, true, ix
	c.report(r.Root.Digest)
	return r
}

func (c *creation) read(ctx context.Context, found *comparison) error {
	share, err := c.join(ctx)
	if err != nil {
		return err
	}
	c.places = newPlaces()
	if c.store {
		c.packer = newPacker(&c.options, share, c.fail)
		if err := c.places.know(ctx, c.parent); err != nil {
			return err
		}
	}
	c.reading = &reading{
		tree: c.tree, places: c.places, versions: found.versions, packer: c.packer, share: share,
		progress: c.options.Progress, openFile: openReading,
	}
	if c.openFile != nil {
		c.reading.openFile = c.openFile
	}
	c.reading.tell(found.files, found.bytes)
	if err := c.reading.run(ctx, c.fail); err != nil {
		return err
	}
	if err := c.reading.promote(ctx, c.links); err != nil {
		return err
	}
	c.result.BytesRead = c.reading.bytesRead.Load()
	return nil
}

// finish makes the manifest and stores it.
func (c *creation) finish(ctx context.Context) (*Result, error) {
	m, err := c.assemble(ctx, nil)
	if err != nil {
		return nil, err
	}
	if !c.store {
		c.report(m.press.digest)
		return &c.result, nil
	}
	faults.Point("archive.create.read")
	if m.unchanged() {
		return m.discard(ctx)
	}
	if k := c.planCompaction(m.assembler, m.press.outs); k != nil {
		moved, err := k.move(ctx, c)
		if err != nil {
			return nil, err
		}
		if moved {
			if m, err = c.assemble(ctx, k); err != nil {
				return nil, err
			}
		}
	}
	return m.store(ctx)
}

// assemble makes the pages.
func (c *creation) assemble(ctx context.Context, k *compaction) (*manifest, error) {
	cursor := newParentCursor(ctx, c.parent)
	defer cursor.close()
	m := &manifest{creation: c}
	m.press = newPress(c.parent, k, c.store, c.fail)
	m.assembler = &assembler{
		tree: c.tree, links: c.links, places: c.places, extras: &c.reading.extras, cursor: cursor, compaction: k, press: m.press,
	}
	err := m.assembler.assemble(ctx)
	m.press.close()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return m, err
}
