package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// packsOf returns the paths of all packs of a store's domain.
func packsOf(t *testing.T, at string) []string {
	t.Helper()
	g := NewWithT(t)
	packs, err := filepath.Glob(strings.TrimPrefix(at, "--store=file://") + "/d/team/p/*/*")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packs).NotTo(BeEmpty())
	return packs
}

// flip changes the byte in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	g := NewWithT(t)
	data, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	data[len(data)/2] ^= 1
	g.Expect(os.WriteFile(path, data, 0o600)).To(Succeed())
}

// names lists a directory.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// What is damaged is found before anything gets its final name: afterwards all is as it was before.
func TestS2_ArchiveRestoreOfDamageLeavesNothing(t *testing.T) {
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	for _, pack := range packsOf(t, at) {
		flip(t, pack)
	}
	made := func(t *testing.T, dir string) { t.Helper(); NewWithT(t).Expect(os.Mkdir(dir, 0o751)).To(Succeed()) }
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"a new directory":       func(*testing.T, string) {},
		"an empty directory":    made,
		"the working directory": func(t *testing.T, dir string) { t.Helper(); made(t, dir); t.Chdir(dir) },
		"a mounted file system": mountTmpfs,
		"a link to a directory": func(t *testing.T, dir string) {
			t.Helper()
			made(t, dir+".real")
			NewWithT(t).Expect(os.Symlink(dir+".real", dir)).To(Succeed())
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			parent := t.TempDir()
			to := filepath.Join(parent, "to")
			prepare(t, to)
			before := namesIn(t, parent)
			g.Expect(refused(t, "archive", "restore", at, inDomain, ofWeb, to)).To(ContainSubstring("damaged"))
			g.Expect(namesIn(t, parent)).To(Equal(before))
			if len(before) > 0 {
				g.Expect(namesIn(t, to)).To(BeEmpty())
				info, err := os.Stat(to)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o751)))
			}
		})
	}
}

// mountTmpfs mounts an empty file system of mode 0751 on a new directory.
func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	g.Expect(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0751")).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(dir, 0)).To(Succeed()) })
}

func TestArchiveRestoresIntoMountsAndTheWorkingDirectory(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	mounted := filepath.Join(t.TempDir(), "mounted")
	mountTmpfs(t, mounted)
	must(t, "archive", "restore", at, inDomain, ofWeb, mounted)
	g.Expect(namesIn(t, mounted)).To(ConsistOf("README", "src"))

	here := t.TempDir()
	t.Chdir(here)
	must(t, "archive", "restore", at, inDomain, ofWeb, ".")
	g.Expect(namesIn(t, ".")).To(ConsistOf("README", "src"))
}

// Of two restores into one mount point at once, one does it, and the other says so and touches nothing.
func TestS2_TwoRestoresIntoOneMountPoint(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	to := filepath.Join(t.TempDir(), "to")
	mountTmpfs(t, to)
	other, err := os.Open(to)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.Flock(int(other.Fd()), unix.LOCK_EX)).To(Succeed())
	g.Expect(refused(t, "archive", "restore", at, inDomain, ofWeb, to)).To(ContainSubstring(to + " is locked: another restore into it is at work"))
	g.Expect(namesIn(t, to)).To(BeEmpty())
	g.Expect(other.Close()).To(Succeed())

	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = call(t.Context(), "", "archive", "restore", at, inDomain, ofWeb, to) })
	}
	wg.Wait()
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	g.Expect(failed).To(HaveLen(7))
	for _, err := range failed {
		g.Expect(err).To(MatchError(Or(ContainSubstring("is locked"), ContainSubstring("is not empty"))))
	}
	g.Expect(namesIn(t, to)).To(ConsistOf("README", "src"))
	g.Expect(os.ReadFile(filepath.Join(to, "src", "main.go"))).To(Equal([]byte("package main\n")))
}

// What a killed restore left beside its target goes with the next one; what another one is working on stays.
func TestS5_ArchiveRestoreRemovesWhatAKilledOneLeft(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	parent := t.TempDir()
	left, busy := filepath.Join(parent, "to.restoring-1"), filepath.Join(parent, "to.restoring-2")
	g.Expect(os.MkdirAll(filepath.Join(left, "some", "thing"), 0o500)).To(Succeed())
	g.Expect(os.Mkdir(busy, 0o700)).To(Succeed())
	lock, err := os.Open(busy)
	g.Expect(err).NotTo(HaveOccurred())
	defer lock.Close()
	g.Expect(unix.Flock(int(lock.Fd()), unix.LOCK_EX)).To(Succeed())
	must(t, "archive", "restore", at, inDomain, ofWeb, filepath.Join(parent, "to"))
	g.Expect(namesIn(t, parent)).To(ConsistOf("to", "to.restoring-2"))
	g.Expect(namesIn(t, filepath.Join(parent, "to"))).To(ConsistOf("README", "src"))
}

// A backup never goes on from one that cannot be restored: what is missing is stored anew.
func TestS1_ArchiveCreateDoesNotBuildOnDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, at string){
		"a pack is missing": func(t *testing.T, at string) {
			t.Helper()
			NewWithT(t).Expect(os.Remove(packsOf(t, at)[0])).To(Succeed())
		},
		"the newest commit is damaged": func(t *testing.T, at string) {
			t.Helper()
			commits, err := filepath.Glob(strings.TrimPrefix(at, "--store=file://") + "/d/team/w/web/*")
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			NewWithT(t).Expect(os.WriteFile(commits[0], []byte("{"), 0o600)).To(Succeed())
		},
	} {
		for _, change := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, changed %t", name, change), func(t *testing.T) {
				g := NewWithT(t)
				dir, at := someTree(t), newStoreURL(t)
				must(t, "archive", "create", at, inDomain, ofWeb, dir)
				damage(t, at)
				if change {
					g.Expect(os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600)).To(Succeed())
				}
				made := report(t, "archive", "create", at, inDomain, ofWeb, dir)
				g.Expect(made.Unchanged).To(BeFalse())
				g.Expect(must(t, "archive", "verify", "--read-data", at, inDomain, ofWeb, "--backup="+made.Backup)).To(ContainSubstring("is whole"))
			})
		}
	}
}

// manyUnreadable takes write leases on n files, so that nobody else can open them.
func manyUnreadable(t *testing.T, dir string, n int) {
	t.Helper()
	g := NewWithT(t)
	for i := range n {
		file, err := os.Create(filepath.Join(dir, fmt.Sprintf("leased-%03d", i)))
		g.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(func() { _ = file.Close() })
		_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		g.Expect(err).NotTo(HaveOccurred())
	}
}

// Every file that was not read counts, also beyond those that are named, and an incomplete backup is one to go on from.
func TestS3_ArchiveCreateCountsAllUnreadableFiles(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	manyUnreadable(t, dir, 130)
	g.Expect(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)).To(Succeed())
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(unix.Close(socket)).To(Succeed()) }()
	g.Expect(unix.Bind(socket, &unix.SockaddrUnix{Name: filepath.Join(dir, "socket")})).To(Succeed())

	create := func() summary {
		out, err := call(t.Context(), "", "archive", "create", at, inDomain, ofWeb, dir, "--json")
		g.Expect(err).To(MatchError("backup 1.1 is incomplete: 130 files could not be read"))
		coded := new(codeError)
		g.Expect(errors.As(err, &coded)).To(BeTrue())
		g.Expect(coded.code).To(Equal(3))
		var s summary
		g.Expect(json.NewDecoder(strings.NewReader(out)).Decode(&s)).To(Succeed())
		return s
	}
	first := create()
	g.Expect(first.IncompleteCount).To(Equal(int64(130)))
	g.Expect(first.Incomplete).To(HaveLen(100))
	g.Expect(first.Skipped).To(Equal([]string{"socket"}))
	again := create()
	g.Expect(again.Unchanged).To(BeTrue())
	g.Expect(again.BytesStored).To(BeZero())
	g.Expect(strings.Count(must(t, "archive", "ls", at, inDomain, ofWeb, "--backup=1.1"), "could not be read when the backup was made: leased-")).To(Equal(130))
}

// Of two that run at once, each has a number of its own, or says that the other was faster.
func TestS2_ArchiveCreateTwiceAtOnce(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	outs, errs := make([]string, 6), make([]error, 6)
	var all sync.WaitGroup
	for i := range outs {
		all.Go(func() { outs[i], errs[i] = call(t.Context(), "", "archive", "create", at, inDomain, ofWeb, dir) })
	}
	all.Wait()
	made := map[string]bool{}
	for i, out := range outs {
		if errs[i] != nil {
			g.Expect(errs[i]).To(MatchError(ContainSubstring("run it again")))
			continue
		}
		made[strings.Fields(out)[2]] = true
	}
	g.Expect(made).NotTo(BeEmpty())
	for backup := range made {
		g.Expect(must(t, "archive", "verify", "--read-data", at, inDomain, ofWeb, "--backup="+strings.TrimSuffix(backup, ":"))).To(ContainSubstring("is whole"))
	}
}
