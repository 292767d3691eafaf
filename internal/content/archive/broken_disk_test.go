package archive

import (
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// brokenDisk opens something that fails with EIO whenever it is read.
func brokenDisk(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/proc/self/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return fd
}

func TestS3_ReadErrorsAreReported(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(writeFile(dir+"/bad", "content")).To(Succeed())
	root, err := openRoot(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = unix.Close(root) }()
	b := &builder{root: root, stop: t.Context().Err, openFile: func(int) (int, error) { return brokenDisk(t), nil }}
	g.Expect(b.run(t.Context())).To(Succeed())
	g.Expect(b.report.Unreadable).To(Equal([]Problem{{Path: "bad", Error: "input/output error"}}))
	g.Expect(b.report.Files).To(BeZero())
}

// The size of a large file is already promised when reading fails, so zeros take the place of what is missing.
func TestS3_ReadErrorsInTheMiddleAreReported(t *testing.T) {
	g := NewWithT(t)
	fd := brokenDisk(t)
	defer func() { _ = unix.Close(fd) }()
	b := &builder{stop: t.Context().Err}
	out := &counting{}
	short, err := b.copy(fd, "bad", 3*chunkSize+1, out)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(short).To(BeFalse(), "it is reported, reading again is no use")
	g.Expect(out.n).To(Equal(3*chunkSize + 1))
	g.Expect(b.report.Unreadable).To(Equal([]Problem{{Path: "bad", Error: "input/output error"}}))
	g.Expect(b.report.UnreadableCount).To(BeEquivalentTo(1))
}

// counting expects zeros.
type counting struct{ n int }

func (c *counting) Write(p []byte) (int, error) {
	if !isZero(p) {
		return 0, unix.EINVAL
	}
	c.n += len(p)
	return len(p), nil
}

func writeFile(path, content string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return pwriteFull(fd, []byte(content), 0)
}

// A descriptor of a directory that was moved away must not be taken for the one whose names are being done.
func TestReopenedDirectoryMustBeTheSame(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		g.Expect(unix.Mkdir(dir+"/"+name, 0o755)).To(Succeed())
	}
	root, err := openRoot(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = unix.Close(root) }()
	var st unix.Stat_t
	g.Expect(unix.Stat(dir+"/a", &st)).To(Succeed())
	w := &walker{root: root}
	f := &frame{path: "a", fd: -1, dev: st.Dev, ino: st.Ino}
	g.Expect(w.reopen(f)).To(Succeed())
	g.Expect(unix.Close(f.fd)).To(Succeed())
	f.fd = -1
	g.Expect(unix.Renameat2(root, "a", root, "b", unix.RENAME_EXCHANGE)).To(Succeed())
	g.Expect(w.reopen(f)).To(MatchError(errMoved))
	g.Expect(f.fd).To(Equal(-1))
}
