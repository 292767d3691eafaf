package state

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	format       = 1
	identityFile = "identity.json"
	lockFile     = "lock"
	journalDir   = "journal"
	tempPrefix   = ".tmp-"
	maxFile      = 1 << 20
)

// Errors of an area, for errors.Is.
var (
	// ErrNoIdentity means that the directory is no working area: it was never initialized, or its disk is not mounted.
	ErrNoIdentity = errors.New("no identity.json: mount the disk, or run ws-daemon area init --config FILE")
	// ErrInitialized means that the area has an identity already.
	ErrInitialized = errors.New("the working area is initialized already")
	// ErrLocked means that another process uses the area.
	ErrLocked = errors.New("the working area is used by another process")
	// ErrReplaced means that the path does not lead to the area any more that was opened.
	ErrReplaced = errors.New("the disk was unmounted or replaced: mount it again and restart the daemon")
	// ErrReadOnly means that nothing can be noted in the area.
	ErrReadOnly = errors.New("the working area is read-only: look for errors of its disk (dmesg), repair it, and mount it writable")
	// ErrStoreSet means that the area belongs to another object store.
	ErrStoreSet = errors.New("the working area belongs to another object store")
)

// Identity says whose working area a directory is.
type Identity struct {
	// Format of the file, 1; filled in when it is written.
	Format int `json:"format"`
	// ID of the area, random; filled in when it is written, unless the caller chose one.
	ID string `json:"id"`
	// Cluster is the UID of the namespace kube-system.
	Cluster string `json:"cluster"`
	// Node is the name of the node.
	Node string `json:"node"`
	// Store is the id of the object store that was used first, empty before that.
	Store string `json:"store,omitempty"`
	// Created is when the area was initialized.
	Created time.Time `json:"created"`
}

// Area is an open working area. Its methods may be called from any goroutine.
type Area struct {
	dir     string
	root    *os.Root
	lock    *os.File
	journal *Journal
	reserve *reserve

	mu       sync.Mutex
	identity *Identity
	file     os.FileInfo
}

// Open takes the lock of an area and reads its identity and journal. The directory has to exist. An area without
// identity can be opened, so that it can be initialized; and so can one that is read-only, so that what it names stays in use. ErrLocked
// names the process that has the lock, if it is known.
func Open(dir string) (*Area, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open working area: %w: make the directory, or mount its disk, or name another one (content.workingArea)", err)
	}
	a := &Area{dir: dir, root: root, reserve: &reserve{root: root}}
	if err := a.load(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Area) load() error {
	if err := a.takeLock(); err != nil {
		return fmt.Errorf("lock working area %s: %w", a.dir, err)
	}
	if err := removeTemporary(a.root); err != nil {
		return fmt.Errorf("clean working area %s: %w", a.dir, err)
	}
	if err := a.readIdentity(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", filepath.Join(a.dir, identityFile), err)
	}
	journal, err := openJournal(a.root, a.reserve)
	if err != nil {
		return fmt.Errorf("read journal of working area %s: %w", a.dir, err)
	}
	a.journal = journal
	if a.identity != nil { // else this may be a mount point, and no room of ours
		a.reserve.fill()
	}
	return nil
}

// Close gives the lock back. The area must not be used afterwards.
func (a *Area) Close() {
	if a.lock != nil {
		_ = a.lock.Close()
	}
	_ = a.root.Close()
}

// Dir returns the path under which the area was opened.
func (a *Area) Dir() string { return a.dir }

// Journal returns the journal of the area.
func (a *Area) Journal() *Journal { return a.journal }

// Identity returns the identity of the area, or ErrNoIdentity.
func (a *Area) Identity() (Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.identity == nil {
		return Identity{}, fmt.Errorf("working area %s: %w", a.dir, ErrNoIdentity)
	}
	return *a.identity, nil
}

// Init writes the identity. It never replaces one: ErrInitialized.
func (a *Area) Init(id Identity) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, err := initialize(a.root, id)
	if err == nil {
		err = a.adopt(id)
	}
	if err != nil {
		return fmt.Errorf("initialize working area %s: %w", a.dir, err)
	}
	a.reserve.fill()
	return nil
}

// Initialize does what [Area.Init] does in a directory that a daemon may have open: one that has no identity does nothing but
// wait for it.
func Initialize(dir string, id Identity) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open working area: %w", err)
	}
	defer root.Close()
	if _, err := initialize(root, id); err != nil {
		return fmt.Errorf("initialize working area %s: %w", dir, err)
	}
	return nil
}

// initialize needs no lock: of two that link a file under one name, one fails.
func initialize(root *os.Root, id Identity) (Identity, error) {
	id.Format = format
	if id.ID == "" {
		id.ID = rand.Text()
	}
	err := writeJSON(root, ".", identityFile, id, root.Link)
	if errors.Is(err, fs.ErrExist) {
		err = ErrInitialized
	}
	return id, err
}

// SetStore records the object store that is used first. Recording the same again does nothing; another is ErrStoreSet.
func (a *Area) SetStore(id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.identity == nil {
		return fmt.Errorf("working area %s: %w", a.dir, ErrNoIdentity)
	}
	if a.identity.Store == id {
		return nil
	}
	if a.identity.Store != "" {
		return fmt.Errorf("working area %s belongs to store %s, not %s: %w", a.dir, a.identity.Store, id, ErrStoreSet)
	}
	next := *a.identity
	next.Store = id
	err := a.reserve.writeJSON(".", identityFile, next)
	if err == nil {
		err = a.adopt(next)
	}
	if err != nil {
		return fmt.Errorf("record store in working area %s: %w", a.dir, err)
	}
	return nil
}

// Check tells whether the path of the area still leads to the identity file that was opened. It does not after the disk
// was unmounted or another was mounted: ErrReplaced.
func (a *Area) Check() error {
	a.mu.Lock()
	known, file := a.identity != nil, a.file
	a.mu.Unlock() // a disk that hangs must not keep the identity from anybody
	if !known {
		return fmt.Errorf("working area %s: %w", a.dir, ErrNoIdentity)
	}
	path := filepath.Join(a.dir, identityFile)
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check %s: it is gone: %w", path, ErrReplaced)
	}
	if err != nil {
		return fmt.Errorf("check working area: %w", err)
	}
	if !os.SameFile(file, now) {
		return fmt.Errorf("check %s: it is another file: %w", path, ErrReplaced)
	}
	return nil
}

// takeLock uses flock and not a pid file: the kernel gives it back when the process dies.
func (a *Area) takeLock() error {
	f, err := a.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if readOnly(err) {
		f, err = a.openReadOnly()
	}
	if err != nil {
		return fmt.Errorf("%w (is the disk mounted and writable?)", err)
	}
	a.lock = f
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return lockedBy(f)
	}
	if err != nil {
		return err
	}
	// The pid is for a message only: on a full disk the daemon has to start all the same.
	_, _ = f.WriteAt(fmt.Appendf(nil, "%-20d\n", os.Getpid()), 0)
	return nil
}

// openReadOnly opens what is locked where nothing can be written: the directory itself, if it was never locked before.
func (a *Area) openReadOnly() (*os.File, error) {
	f, err := a.root.Open(lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a.root.Open(".")
	}
	return f, err
}

func readOnly(err error) bool { return errors.Is(err, unix.EROFS) }

func lockedBy(f *os.File) error {
	pid := make([]byte, 32)
	n, _ := f.ReadAt(pid, 0)
	if holder := strings.TrimSpace(string(pid[:n])); holder != "" {
		return fmt.Errorf("%w: pid %s", ErrLocked, holder)
	}
	return ErrLocked
}

func (a *Area) readIdentity() error {
	data, err := readFile(a.root, identityFile)
	if err != nil {
		return err
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return fmt.Errorf("damaged, restore it from a copy: %w", err)
	}
	if id.Format != format || id.ID == "" {
		return fmt.Errorf("format %d with id %q is not understood by this version", id.Format, id.ID)
	}
	return a.adopt(id)
}

// adopt remembers which file the identity is in, for Check.
func (a *Area) adopt(id Identity) error {
	file, err := a.root.Lstat(identityFile)
	if err != nil {
		return err
	}
	a.identity, a.file = &id, file
	return nil
}

// HasIdentity says whether a directory holds an initialized working area now.
func HasIdentity(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, identityFile))
	return err == nil
}
