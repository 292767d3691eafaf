package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	entrySuffix   = ".json"
	damagedSuffix = ".damaged"
)

// Entry is what the daemon remembers of one volume.
type Entry struct {
	// Format of the file, 1; filled in when it is written.
	Format int `json:"format"`
	// UID of the Workspace object, which names the volume.
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Class of the volume.
	Class string `json:"class"`
	// Claim under which this node holds the content, 0 before the first.
	Claim int64 `json:"claim,omitempty"`
	// Backup is the state of the periodic and final backups.
	Backup Backup `json:"backup"`
	// Stray is the last snapshot of content that could not be committed.
	Stray Stray `json:"stray,omitzero"`
	// Fork is the id of the last pinned commit that a former owner had under way when this node took over.
	Fork string `json:"fork,omitempty"`
	// Lost is the last backup that vanished from the store.
	Lost string `json:"lost,omitempty"`
	// Released is the fingerprint of the tree when it was released.
	Released string `json:"released,omitempty"`
	// Usage of the volume when it was last measured.
	Usage Usage `json:"usage,omitzero"`
	// MissingSince is when the object was first seen to be missing; nil while it is there.
	MissingSince *time.Time `json:"missingSince,omitempty"`
	// MissingSeen is when it was last seen to be missing.
	MissingSeen time.Time `json:"missingSeen,omitzero"`
	// Uses are the mounts of the content that pods have.
	Uses []Use `json:"uses,omitempty"`
}

// Usage is what a volume took at a moment.
type Usage struct {
	Bytes  int64     `json:"bytes,omitempty"`
	Inodes int64     `json:"inodes,omitempty"`
	At     time.Time `json:"at,omitzero"`
	// Escaped tells what of the content the volume's limit did not bind, "" for nothing.
	Escaped string `json:"escaped,omitempty"`
}

// Stray is a snapshot of content that could not be committed.
type Stray struct {
	// ID of the snapshot and digest of the tree it holds.
	ID     string `json:"id,omitempty"`
	Digest string `json:"digest,omitempty"`
}

// Backup is what is known of the newest backup, and of the attempts to make the next.
type Backup struct {
	// Name of the newest backup ("7.2"), hash of its commit, and the random id of the attempt that wrote it.
	Name     string `json:"name,omitempty"`
	Hash     string `json:"hash,omitempty"`
	CommitID string `json:"commitID,omitempty"`
	// Digest of the tree it holds.
	Digest string `json:"digest,omitempty"`
	// Time is when it was made, CheckedAt when the tree was last compared with it.
	Time      time.Time `json:"time,omitzero"`
	CheckedAt time.Time `json:"checkedAt,omitzero"`
	// Read is how many bytes of the content that comparison had to read.
	Read  int64 `json:"read,omitempty"`
	Files int64 `json:"files,omitempty"`
	// Bytes of the content, and how many of them were uploaded by this backup.
	Bytes    int64         `json:"bytes,omitempty"`
	Uploaded int64         `json:"uploaded,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
	// Complete is false if files could not be read; Problem says which.
	Complete bool   `json:"complete,omitempty"`
	Problem  string `json:"problem,omitempty"`
	// Pending is the commit that is being written and may or may not be in the store.
	Pending *Pending `json:"pending,omitempty"`
	// Abandoned are the ids of commits whose writes were given up: the store may have applied them all the same.
	Abandoned []string `json:"abandoned,omitempty"`
	// Attempts since the last success, when and why the last one failed, and when the next may start.
	Attempts    int       `json:"attempts,omitempty"`
	LastFailure time.Time `json:"lastFailure,omitzero"`
	Failure     string    `json:"failure,omitempty"`
	// Reason is the kind of that failure, one word.
	Reason      string    `json:"reason,omitempty"`
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// FailingSince is when the first of these attempts failed.
	FailingSince time.Time `json:"failingSince,omitzero"`
	// Retention says why old backups could not be counted or removed; they were made all the same.
	Retention string `json:"retention,omitempty"`
	// Count and Oldest say what can be restored.
	Count  int    `json:"count,omitempty"`
	Oldest string `json:"oldest,omitempty"`
	// Trigger is the value of spec.backup.trigger that was honoured last.
	Trigger string `json:"trigger,omitempty"`
	// Last is the highest number written under this claim.
	Last int64 `json:"last,omitempty"`
}

// Pending names a commit before it is written, so that after a crash it can be recognised as ours.
type Pending struct {
	Number int64  `json:"number"`
	ID     string `json:"id"`
}

// Journal remembers volumes. Its methods may be called from any goroutine.
type Journal struct {
	root    *os.Root
	reserve *reserve

	write sync.Mutex // held over file operations, so that readers do not wait for the disk

	mu      sync.RWMutex
	entries map[string]Entry
	damaged map[string]bool
}

func openJournal(root *os.Root, r *reserve) (*Journal, error) {
	j := &Journal{root: root, reserve: r, entries: map[string]Entry{}, damaged: map[string]bool{}}
	err := root.Mkdir(journalDir, 0o700)
	if err == nil {
		err = syncDir(root, ".")
	}
	if readOnly(err) {
		return j, nil
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	files, err := readDir(root, journalDir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := j.load(f.Name()); err != nil && !readOnly(err) { // what is to go stays for another start then
			return nil, err
		}
	}
	return j, nil
}

// load takes one file of the journal's directory. What a crash left unfinished is removed; what is damaged is set aside,
// because the other volumes must not suffer from it.
func (j *Journal) load(name string) error {
	if strings.HasPrefix(name, tempPrefix) {
		return j.root.Remove(path.Join(journalDir, name))
	}
	if uid, ok := strings.CutSuffix(name, damagedSuffix); ok {
		j.damaged[uid] = true
		return nil
	}
	uid, ok := strings.CutSuffix(name, entrySuffix)
	if !ok {
		return nil
	}
	data, err := readFile(j.root, entryPath(uid))
	entry, decodeErr := decode(data)
	if err != nil || decodeErr != nil || entry.UID != uid || !validUID(uid) {
		j.damaged[uid] = true
		return j.root.Rename(entryPath(uid), damagedPath(uid))
	}
	j.entries[uid] = entry
	return nil
}

// Put records an entry, durably: after nil it survives a crash of the node.
func (j *Journal) Put(e Entry) error {
	if !validUID(e.UID) {
		return fmt.Errorf("journal: %q is no UID", e.UID)
	}
	j.write.Lock()
	defer j.write.Unlock()
	_, err := j.put(e)
	return err
}

// Update changes the entry of a UID in one step: no other write comes between what change sees and what it leaves. If there is
// no entry, change gets one with nothing but the UID, and found is false. Update returns the entry, which is durable after nil
// like one that was Put; if change returns false, nothing is written and what it left is dropped. change must not write to the
// journal.
func (j *Journal) Update(uid string, change func(e *Entry, found bool) bool) (Entry, error) {
	if !validUID(uid) {
		return Entry{}, fmt.Errorf("journal: %q is no UID", uid)
	}
	j.write.Lock()
	defer j.write.Unlock()
	e, found := j.Get(uid)
	e.UID = uid
	if !change(&e, found) {
		e, _ = j.Get(uid)
		return e, nil
	}
	e.UID = uid
	return j.put(e)
}

// put writes an entry and returns it as a restarted daemon would read it; ErrReadOnly. The lock for writing is held.
func (j *Journal) put(e Entry) (Entry, error) {
	e.Format = format
	kept, err := clone(e)
	if err != nil {
		return Entry{}, fmt.Errorf("journal %s: %w", e.UID, err)
	}
	faults.Point("journal.put.before")
	if err := j.root.Mkdir(journalDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) { // somebody removed it
		return Entry{}, fmt.Errorf("make the journal's directory: %w", err)
	}
	err = j.reserve.writeJSON(journalDir, entryPath(e.UID), kept)
	if is, found := j.Get(e.UID); readOnly(err) && found && reflect.DeepEqual(is, kept) {
		return kept, nil // that is noted already
	}
	if readOnly(err) {
		err = fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("write journal of %s/%s (%s): %w", e.Namespace, e.Name, e.UID, err)
	}
	faults.Point("journal.put.after")
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries[e.UID] = kept
	return kept.copy(), nil
}

// Get returns the entry of a UID.
func (j *Journal) Get(uid string) (Entry, bool) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	e, ok := j.entries[uid]
	return e.copy(), ok
}

// Find returns the entries of all objects that had this name, ordered by UID.
func (j *Journal) Find(namespace, name string) []Entry {
	return slices.DeleteFunc(j.List(), func(e Entry) bool { return e.Namespace != namespace || e.Name != name })
}

// List returns all entries, ordered by UID.
func (j *Journal) List() []Entry {
	j.mu.RLock()
	defer j.mu.RUnlock()
	list := make([]Entry, 0, len(j.entries))
	for _, uid := range slices.Sorted(maps.Keys(j.entries)) {
		list = append(list, j.entries[uid].copy())
	}
	return list
}

// Delete forgets a UID, and a damaged file of it too. An absent entry is no error.
func (j *Journal) Delete(uid string) error {
	if !validUID(uid) {
		return fmt.Errorf("journal: %q is no UID", uid)
	}
	j.write.Lock()
	defer j.write.Unlock()
	for _, name := range []string{entryPath(uid), damagedPath(uid)} {
		if err := j.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete journal entry %s: %w", uid, err)
		}
	}
	if err := syncDir(j.root, journalDir); err != nil {
		return fmt.Errorf("delete journal entry %s: %w", uid, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.entries, uid)
	delete(j.damaged, uid)
	return nil
}

// Damaged returns the UIDs of files that could not be read when the area was opened and lie aside as <uid>.damaged.
func (j *Journal) Damaged() []string {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return slices.Sorted(maps.Keys(j.damaged))
}

// validUID keeps a UID from leading out of the journal, and apart from the suffixes of its files.
func validUID(uid string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	return uid != "" && len(uid) <= 64 && strings.Trim(uid, letters) == ""
}

func entryPath(uid string) string   { return path.Join(journalDir, uid+entrySuffix) }
func damagedPath(uid string) string { return path.Join(journalDir, uid+damagedSuffix) }

// clone returns what a restarted daemon would read, so that memory and disk never differ.
func clone(e Entry) (Entry, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return Entry{}, err
	}
	return decode(data)
}

func decode(data []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, err
	}
	if e.Format != format {
		return Entry{}, fmt.Errorf("format %d is not understood by this version", e.Format)
	}
	return e, nil
}

// copy returns an entry that shares no memory with e.
func (e Entry) copy() Entry {
	if e.MissingSince != nil {
		since := *e.MissingSince
		e.MissingSince = &since
	}
	if e.Backup.Pending != nil {
		pending := *e.Backup.Pending
		e.Backup.Pending = &pending
	}
	e.Backup.Abandoned = slices.Clone(e.Backup.Abandoned)
	e.Uses = slices.Clone(e.Uses)
	return e
}
