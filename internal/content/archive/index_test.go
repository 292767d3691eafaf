package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func exampleIndex() *Index {
	ix := newIndex([]byte("table"), [][]byte{[]byte("page one"), {}, []byte("three")}, 77, 3)
	ix.stamps[0] = stamp{ino: 1, sec: -5, nsec: 999_999_999}
	ix.stamps[1] = stamp{ino: 1<<64 - 1, sec: 1 << 40, nsec: 1}
	return ix
}

func TestIndexIsLoadedAsItWasSaved(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "index")
	for range 2 { // again over the one before
		g.Expect(exampleIndex().Save(path)).To(Succeed())
	}
	ix, err := LoadIndex(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ix).To(Equal(exampleIndex()))
	g.Expect(ix.stamps[2].racy).To(BeTrue(), "nothing is known of it")
	entries, err := os.ReadDir(filepath.Dir(path))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(entries).To(HaveLen(1), "no temporary files")
	g.Expect(exampleIndex().Save(filepath.Join(path, "none"))).NotTo(Succeed())
}

func TestDamagedIndexIsAnError(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "index")
	_, err := LoadIndex(path)
	g.Expect(err).To(MatchError(os.ErrNotExist))
	var written bytes.Buffer
	g.Expect(exampleIndex().write(&written)).To(Succeed())
	good := written.Bytes()
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		_, err := decodeIndex(bad)
		g.Expect(err).To(MatchError(errIndex))
		_, err = decodeIndex(good[:i])
		g.Expect(err).To(MatchError(errIndex))
	}
	_, err = decodeIndex(append(good, 0))
	g.Expect(err).To(MatchError(errIndex))
}

func TestIndexDescribesOneRoot(t *testing.T) {
	g := NewWithT(t)
	ix := exampleIndex()
	g.Expect(ix.describes(&Root{Table: []byte("table")})).To(BeTrue())
	for _, other := range []*Root{nil, {}, {Table: []byte("other")}} {
		g.Expect(ix.describes(other)).To(BeFalse())
	}
	g.Expect((*Index)(nil).describes(&Root{})).To(BeFalse())
}

// A time without a fraction may be that of a filesystem that counts seconds.
func TestSealTrustsNoSecondThatIsNotOver(t *testing.T) {
	for sec, racy := range map[int64]bool{998: false, 999: true, 1000: true, 2000: true} {
		ix := newIndex(nil, nil, 0, 1)
		ix.stamps[0] = stamp{sec: sec}
		ix.seal(time.Unix(1000, 10_000_000))
		NewWithT(t).Expect(ix.stamps[0].racy).To(Equal(racy), time.Unix(sec, 0).String())
	}
}

// What has a time of the tick of the look, or of the future, may change without a trace.
func TestSealMarksWhatIsRacy(t *testing.T) {
	look := time.Unix(1000, 10_000_000)
	for age, racy := range map[time.Duration]bool{0: true, -time.Hour: true, 29 * time.Millisecond: true, 31 * time.Millisecond: false, time.Hour: false} {
		at := look.Add(-age)
		ix := newIndex(nil, nil, 0, 1)
		ix.stamps[0] = stamp{sec: at.Unix(), nsec: uint32(at.Nanosecond())}
		ix.seal(look)
		NewWithT(t).Expect(ix.stamps[0].racy).To(Equal(racy), age.String())
	}
}

// A clock that was set back during a scan makes nothing look old.
func TestSealIsOfTheEarlierClock(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	g.Expect(earlier(now, now.Add(time.Second))).To(BeTemporally("==", now))
	g.Expect(earlier(now, now.Round(0).Add(-time.Hour))).To(BeTemporally("==", now.Add(-time.Hour)))
	m := &manifest{creation: &creation{tree: &scanTree{began: now.Add(time.Hour)}}, assembler: &assembler{stamps: []stamp{{ino: 1, sec: now.Unix() + 60}}}}
	g.Expect(m.index(nil, nil).stamps[0].racy).To(BeTrue())
}
