package archive

import (
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

func TestMuchIsWrittenOutOnceAtATime(t *testing.T) {
	g := NewWithT(t)
	r := &restorer{full: make(chan struct{}, 1)}
	r.tell(&hand{bytes: flushEvery - fileCost - 1, files: 1})
	g.Expect(r.full).To(BeEmpty(), "it is not much yet")
	r.tell(&hand{bytes: 1})
	g.Expect(r.full).To(HaveLen(1))
	g.Expect(r.dirty).To(BeZero())
	r.tell(&hand{bytes: flushEvery})
	g.Expect(r.full).To(HaveLen(1), "one is enough while nobody is at it")
	g.Expect(r.dirty).To(BeEquivalentTo(flushEvery), "and it is told later")
	g.Expect(r.report.Bytes).To(BeEquivalentTo(2*flushEvery - fileCost))
}

func TestErrorOfWritingOutIsOneOfTheRestore(t *testing.T) {
	g := NewWithT(t)
	fd, err := openRoot(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	r := &restorer{fd: fd, full: make(chan struct{}, 1)}
	r.full <- struct{}{}
	close(r.full)
	g.Expect(r.writeOut(t.Context())).To(Succeed())
	g.Expect(unix.Close(fd)).To(Succeed())

	r = &restorer{fd: -1, full: make(chan struct{}, 1)}
	r.full <- struct{}{}
	g.Expect(r.writeOut(t.Context())).To(MatchError("write out: bad file descriptor"))
}
