package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// report runs a command that prints one JSON object.
func report(t *testing.T, args ...string) summary {
	t.Helper()
	var s summary
	NewWithT(t).Expect(json.Unmarshal([]byte(must(t, append(args, "--json")...)), &s)).To(Succeed())
	return s
}

// someTree makes a directory with a file below it.
func someTree(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	g.Expect(os.Mkdir(filepath.Join(dir, "src"), 0o750)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "src", "main.go"), []byte("package main\n"), 0o640)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "README"), bytes.Repeat([]byte("read me\n"), 1000), 0o600)).To(Succeed())
	return dir
}

func TestArchiveCreateAndRestore(t *testing.T) {
	for name, seal := range map[string]bool{"readable": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, at := someTree(t), []string{newStoreURL(t), inDomain, ofWeb}
			if seal {
				key := filepath.Join(t.TempDir(), "key")
				g.Expect(os.WriteFile(key, bytes.Repeat([]byte("07"), 32), 0o600)).To(Succeed())
				at = append(at, "--key-file="+key)
			}
			archive := func(command string, more ...string) []string {
				return append(append([]string{"archive", command}, at...), more...)
			}
			first := report(t, archive("create", dir)...)
			g.Expect(first).To(And(HaveField("Backup", "1.1"), HaveField("Files", int64(2)), HaveField("Directories", int64(2)),
				HaveField("Bytes", int64(8013)), HaveField("BytesRead", int64(8013)), HaveField("Unchanged", false), HaveField("Incomplete", BeEmpty())))
			g.Expect(first.BytesStored).To(BeNumerically(">", 0))
			g.Eventually(func() int64 { return report(t, archive("create", dir)...).BytesRead }).Should(BeZero())
			again := report(t, archive("create", dir)...)
			g.Expect(again).To(And(HaveField("Backup", "1.1"), HaveField("Unchanged", true), HaveField("BytesStored", int64(0))))
			g.Expect(again.Requests.Put).To(BeZero())

			g.Expect(os.WriteFile(filepath.Join(dir, "src", "main.go"), []byte("package other\n"), 0o640)).To(Succeed())
			g.Expect(report(t, archive("create", dir)...)).To(And(HaveField("Backup", "1.2"), HaveField("BytesRead", int64(14))))
			g.Expect(must(t, archive("diff", "1.1")...)).To(ContainSubstring("src/main.go"))

			out := filepath.Join(t.TempDir(), "new")
			g.Expect(report(t, archive("restore", "--backup=1.1", out)...)).To(And(HaveField("Backup", "1.1"), HaveField("Files", int64(2))))
			g.Expect(os.ReadFile(filepath.Join(out, "src", "main.go"))).To(BeEquivalentTo("package main\n"))
			g.Expect(report(t, archive("create", out)...).BytesRead).To(Equal(int64(8013)), "the newest backup is another than the one that was restored")

			one := filepath.Join(t.TempDir(), "one")
			restored := report(t, archive("restore", "--backup=1.2", "--path=src/main.go", one)...)
			g.Expect(restored.Files).To(Equal(int64(1)))
			g.Expect(os.ReadFile(filepath.Join(one, "src", "main.go"))).To(BeEquivalentTo("package other\n"))
			g.Expect(filepath.Join(one, "README")).NotTo(BeAnExistingFile())

			g.Expect(must(t, archive("cat", "--backup=1.2", "src/main.go")...)).To(Equal("package other\n"))
			g.Expect(strings.Split(strings.TrimSpace(must(t, archive("ls", "--backup=1.2", "-r")...)), "\n")).To(HaveLen(4))
			g.Expect(must(t, archive("verify", "--read-data")...)).To(HaveSuffix("is whole: 2 files, 8013 bytes\n"))
		})
	}
}

// Requests are what an object store costs, in money and in time.
func TestArchiveRequests(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	reading := func(s summary) int64 { return s.Requests.Get + s.Requests.List }
	create := func() summary { return report(t, "archive", "create", at, inDomain, ofWeb, dir) }
	restore := func(paths ...string) summary {
		return report(t, append([]string{"archive", "restore", at, inDomain, ofWeb, filepath.Join(t.TempDir(), "out")}, paths...)...)
	}
	g.Expect(create().Backup).To(Equal("1.1"))
	one := restore("--path=src/main.go")
	g.Expect(one.Files).To(Equal(int64(1)))
	g.Expect(reading(one)).To(Equal(int64(4)), "the newest backup, its commit, a page and a frame")
	g.Expect(reading(restore())).To(Equal(int64(4)))
	g.Expect(one.Requests.Stat).To(BeZero())

	g.Expect(os.WriteFile(filepath.Join(dir, "src", "main.go"), []byte("package other\n"), 0o640)).To(Succeed())
	changed := create()
	g.Expect(changed.Backup).To(Equal("1.2"))
	g.Expect(changed.Requests.Put).To(Equal(int64(2)), "a pack and the commit")
	g.Expect(reading(changed)).To(Equal(int64(4)), "the newest backup, its commit, what is being collected, and whether it still is the newest")
	g.Expect(changed.Requests.Stat).To(Equal(int64(1)), "each pack of the one before is looked for")
	g.Expect(changed.Requests.Delete).To(BeZero())
}

// Of many backups of one workspace at once each has a name of its own, or says that another one was faster.
func TestS2_ArchiveCreateAtOnce(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	made := make(chan string, 8)
	var wait sync.WaitGroup
	for i := range cap(made) {
		other := t.TempDir()
		g.Expect(os.WriteFile(filepath.Join(other, "file"), []byte{byte(i)}, 0o600)).To(Succeed())
		wait.Go(func() {
			out, err := call(t.Context(), "", "archive", "create", at, inDomain, ofWeb, other)
			if err != nil {
				out = err.Error()
			}
			made <- out
		})
	}
	wait.Wait()
	close(made)
	names := map[string]bool{"1.1": true}
	for out := range made {
		name, ok := strings.CutPrefix(out, "created backup ")
		if !ok {
			g.Expect(out).To(ContainSubstring("somebody else made a backup of workspace team/web at the same time: run it again"))
			continue
		}
		name, _, _ = strings.Cut(name, ":")
		g.Expect(names).NotTo(HaveKey(name))
		names[name] = true
	}
	g.Expect(len(names)).To(BeNumerically(">", 1), "one was the fastest")
	lines := strings.Split(strings.TrimSpace(must(t, "archive", "list", at, inDomain, ofWeb)), "\n")[1:]
	g.Expect(lines).To(HaveLen(len(names)))
	for _, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		g.Expect(names).To(HaveKey(name))
		must(t, "archive", "verify", at, inDomain, ofWeb, "--read-data", "--backup="+name)
	}
}

func TestArchiveSealedNeedsItsKey(t *testing.T) {
	g := NewWithT(t)
	dir, at, key := someTree(t), newStoreURL(t), filepath.Join(t.TempDir(), "key")
	g.Expect(os.WriteFile(key, bytes.Repeat([]byte("07"), 32), 0o600)).To(Succeed())
	must(t, "archive", "create", at, inDomain, ofWeb, "--key-file="+key, dir)
	g.Expect(refused(t, "archive", "ls", at, inDomain, ofWeb)).To(ContainSubstring("key"))
	g.Expect(os.WriteFile(key, bytes.Repeat([]byte("08"), 32), 0o600)).To(Succeed())
	g.Expect(refused(t, "archive", "ls", at, inDomain, ofWeb, "--key-file="+key)).To(ContainSubstring("key"))
}

// What cannot be read is named, and the exit code says so.
func TestS3_ArchiveCreateOfUnreadableFiles(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	file, err := os.OpenFile(filepath.Join(dir, "README"), os.O_RDONLY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	_, err = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_WRLCK) // nobody else may open it until this one has given it back
	g.Expect(err).NotTo(HaveOccurred())
	out, err := call(t.Context(), "", "archive", "create", at, inDomain, ofWeb, dir)
	g.Expect(err).To(MatchError("backup 1.1 is incomplete: 1 files could not be read"))
	coded := new(codeError)
	g.Expect(errors.As(err, &coded)).To(BeTrue())
	g.Expect(coded.code).To(Equal(3))
	g.Expect(out).To(HavePrefix("created backup 1.1: "))
	g.Expect(must(t, "archive", "list", at, inDomain, ofWeb)).To(ContainSubstring("false"))
}

func TestArchiveRestoreRefusals(t *testing.T) {
	g := NewWithT(t)
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	file := filepath.Join(dir, "README")
	for want, args := range map[string][]string{
		"not empty":                 {"restore", at, inDomain, ofWeb, dir},
		"not a directory":           {"restore", at, inDomain, ofWeb, file},
		"no such file or directory": {"create", at, inDomain, ofWeb, "/nowhere/at/all"},
		"nothing/here":              {"restore", at, inDomain, ofWeb, "--path=nothing/here", t.TempDir()},
		"no backup 7.7":             {"restore", at, inDomain, ofWeb, "--backup=7.7", t.TempDir()},
		"is a directory":            {"cat", at, inDomain, ofWeb, "src"},
	} {
		g.Expect(refused(t, append([]string{"archive"}, args...)...)).To(ContainSubstring(want))
	}
	g.Expect(os.ReadFile(file)).To(HaveLen(8000), "nothing changed")
}
