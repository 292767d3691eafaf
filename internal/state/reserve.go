package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/faults"
)

const (
	reserveDir   = "reserve"
	reserveFiles = 16
	reserveSize  = 64 << 10 // bytes of each; more than an entry with long error messages has
)

// reserve is room on the disk that its users cannot take: they share the disk with the working area, and whoever fills it must
// not keep the daemon from noting what it does, or there would be no more backups of anybody. It consists of files whose blocks
// are allocated. On a full disk a record is written into one of them, which then changes places with the record's file: neither
// a block nor a directory entry has to be found, and the reserve does not shrink, so it lasts for as long as the disk is full.
type reserve struct {
	root *os.Root

	mu    sync.Mutex
	short bool // files were used up, or could not be made
}

// fill makes the reserve whole, as far as there is room. Nothing is flushed: what a crash takes is made at the next start.
func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refill()
}

func (r *reserve) refill() {
	err := r.root.Mkdir(reserveDir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	for i := 0; i < reserveFiles && err == nil; i++ {
		err = r.allocate(path.Join(reserveDir, fmt.Sprintf("%02d", i)))
	}
	r.short = err != nil
}

func (r *reserve) allocate(name string) error {
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, reserveSize)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.WriteAt(make([]byte, reserveSize), 0)
	}
	return errors.Join(err, f.Close())
}

// writeJSON replaces a file like the function of that name, and does so on a full disk as well.
func (r *reserve) writeJSON(dir, name string, value any) error {
	err := writeJSON(r.root, dir, name, value, r.root.Rename)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.short {
		r.refill()
	}
	if !noSpace(err) {
		return err
	}
	r.short = true
	data, encodeErr := encode(value)
	if encodeErr != nil {
		return encodeErr
	}
	if usedErr := r.replace(dir, name, data); usedErr != nil {
		return fmt.Errorf("%w; the reserve did not help: %w", err, usedErr)
	}
	return nil
}

// noSpace says whether an error means that blocks or inodes have run out.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// replace writes data into the smallest file of the reserve that takes it, and puts that in the place of name.
func (r *reserve) replace(dir, name string, data []byte) error {
	files, err := r.files()
	if err != nil {
		return err
	}
	_, err = r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) && len(files) <= reserveFiles/2 {
		return errors.New("what is left of it is for files that exist already") // a new one gives nothing in return
	}
	for _, file := range files {
		err = overwrite(r.root, file, data)
		if err == nil {
			return r.exchange(file, dir, name)
		}
		if !noSpace(err) {
			break
		}
	}
	return err
}

// files returns what the reserve consists of, the smallest first: those that were a record before.
func (r *reserve) files() ([]string, error) {
	entries, err := readDir(r.root, reserveDir)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			name := path.Join(reserveDir, e.Name())
			names, sizes[name] = append(names, name), info.Size()
		}
	}
	if len(names) == 0 {
		return nil, errors.New("it is used up")
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sizes[a], sizes[b]), cmp.Compare(a, b)) })
	return names, nil
}

// overwrite replaces what is in a file, in the blocks that it has, and makes it durable.
func overwrite(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// exchange gives a file of the reserve the name of a record, and the record's file that of the reserve's. Where the file system
// cannot exchange names, or there is no record yet, the reserve loses a file.
func (r *reserve) exchange(file, dir, name string) error {
	root, err := r.root.Open(".")
	if err != nil {
		return err
	}
	defer root.Close()
	faults.Point("journal.reserve.written")
	fd := int(root.Fd())
	err = unix.Renameat2(fd, file, fd, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = unix.Renameat(fd, file, fd, name)
	}
	if err != nil {
		return err
	}
	faults.Point("journal.reserve.placed")
	return errors.Join(syncDir(r.root, dir), syncDir(r.root, reserveDir))
}
