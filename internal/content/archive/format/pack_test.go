package format

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
)

var packKeys = map[string]func(tb testing.TB) *Key{
	"plain":  func(testing.TB) *Key { return nil },
	"sealed": testKey,
}

// buildPack makes a pack of those contents, the last of which is a page.
func buildPack(tb testing.TB, id PackID, key *Key, contents ...[]byte) ([]byte, []Frame) {
	tb.Helper()
	g := NewWithT(tb)
	e, _ := codecs(tb)
	w, err := NewPackWriter(id, key, make([]byte, 0, 1<<20))
	g.Expect(err).NotTo(HaveOccurred())
	frames := make([]Frame, len(contents))
	for i, c := range contents {
		z := e.Compress(nil, c)
		s, ok := w.Reserve(typeAt(i, len(contents)), len(c), len(z))
		g.Expect(ok).To(BeTrue())
		frames[i] = s.Fill(z)
	}
	size := w.Size()
	pack, err := w.Finish()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(pack).To(HaveLen(size))
	return pack, frames
}

func typeAt(i, n int) FrameType {
	if i == n-1 {
		return FramePage
	}
	return FrameData
}

func contents() [][]byte {
	return [][]byte{[]byte("first\n"), bytes.Repeat([]byte("second "), 1000), {0}, []byte("the page\n")}
}

// readPack reads a whole pack by its trailer.
func readPack(d *Decoder, id PackID, key *Key, pack []byte) ([]PackFrame, [][]byte, error) {
	f, err := ReadFooter(id, int64(len(pack)), pack[max(0, len(pack)-FooterSize):])
	if err != nil {
		return nil, nil, err
	}
	rows, err := ReadTrailer(key, f, pack[f.Offset:f.Offset+f.Length])
	if err != nil {
		return nil, nil, err
	}
	list := make([][]byte, len(rows))
	for i, r := range rows {
		list[i], err = d.OpenFrame(nil, key, r.Frame, r.Type, pack[r.Offset:r.Offset+r.Stored])
		if err != nil {
			return nil, nil, err
		}
	}
	return rows, list, nil
}

func TestPackRoundTrip(t *testing.T) {
	for name, key := range packKeys {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			pack, frames := buildPack(t, testID(1), key(t), contents()...)
			rows, list, err := readPack(d, testID(1), key(t), pack)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(list).To(Equal(contents()))
			for i, r := range rows {
				g.Expect(r).To(Equal(PackFrame{frames[i], typeAt(i, len(rows))}))
			}
			again, _ := buildPack(t, testID(1), key(t), contents()...)
			g.Expect(again).To(Equal(pack), "equal contents under one id make equal packs")
		})
	}
}

func TestSlotsAreFilledConcurrentlyInAnyOrder(t *testing.T) {
	for name, key := range packKeys {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			e, d := codecs(t)
			w, err := NewPackWriter(testID(1), key(t), make([]byte, 0, 8<<20))
			g.Expect(err).NotTo(HaveOccurred())
			var wait sync.WaitGroup
			var frames [100]Frame
			for i := range frames {
				z := e.Compress(nil, block(i))
				s, ok := w.Reserve(FrameData, len(block(i)), len(z))
				g.Expect(ok).To(BeTrue())
				place := s.Place()
				g.Expect(place.Index).To(BeEquivalentTo(i))
				wait.Go(func() { frames[i] = s.Fill(z) })
			}
			wait.Wait()
			g.Expect(w.Frames()).To(Equal(100))
			pack, err := w.Finish()
			g.Expect(err).NotTo(HaveOccurred())
			for i, f := range frames {
				got, err := d.OpenFrame(nil, key(t), f, FrameData, pack[f.Offset:f.Offset+f.Stored])
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got).To(Equal(block(i)))
			}
			_, _, err = readPack(d, testID(1), key(t), pack)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

func block(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "block %d ", i), 1000) }

func TestPackNeverOutgrowsItsBuffer(t *testing.T) {
	for name, key := range packKeys {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			e, _ := codecs(t)
			noise := make([]byte, 1000)
			_, _ = rand.Read(noise)
			z := e.Compress(nil, noise)
			buf := make([]byte, 0, 10_000)
			w, err := NewPackWriter(testID(1), key(t), buf)
			g.Expect(err).NotTo(HaveOccurred())
			for {
				s, ok := w.Reserve(FrameData, len(noise), len(z))
				if !ok {
					break
				}
				s.Fill(z)
			}
			g.Expect(w.Frames()).To(Equal(9))
			pack, err := w.Finish()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(&pack[0]).To(BeIdenticalTo(&buf[:1][0]), "it lies in the caller's buffer")
			rows, _, err := readPack(d, testID(1), key(t), pack)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(rows).To(HaveLen(9))
		})
	}
}

func TestPackWriterReportsMistakes(t *testing.T) {
	z := []byte("zstd frame")
	for name, c := range map[string]struct {
		do      func(w *PackWriter)
		message string
	}{
		"no frame":        {func(*PackWriter) {}, "0 of 0 frames"},
		"unfilled":        {func(w *PackWriter) { w.Reserve(FrameData, 1, 1) }, "0 of 1 frames"},
		"filled twice":    {func(w *PackWriter) { s, _ := w.Reserve(FrameData, 9, len(z)); s.Fill(z); s.Fill(z) }, "filled before"},
		"other length":    {func(w *PackWriter) { s, _ := w.Reserve(FrameData, 9, 5); s.Fill(z) }, "5 were reserved"},
		"empty":           {func(w *PackWriter) { s, _ := w.Reserve(FrameData, 0, 5); s.Fill(z[:5]) }, "must be from 1"},
		"too large":       {func(w *PackWriter) { w.Reserve(FrameData, MaxRaw+1, 5) }, "must be from 1"},
		"fits in no pack": {func(w *PackWriter) { w.Reserve(FrameData, MaxRaw, 5000) }, "do not fit"},
		"after the end": {func(w *PackWriter) {
			s, _ := w.Reserve(FrameData, 9, len(z))
			s.Fill(z)
			_, _ = w.Finish()
			s, _ = w.Reserve(FrameData, 9, len(z))
			s.Fill(z)
		}, "finished"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			w, err := NewPackWriter(testID(1), testKey(t), make([]byte, 0, 1000))
			g.Expect(err).NotTo(HaveOccurred())
			c.do(w)
			_, err = w.Finish()
			g.Expect(err).To(MatchError(ContainSubstring(c.message)))
		})
	}
	g := NewWithT(t)
	_, err := NewPackWriter(testID(1), nil, make([]byte, 100))
	g.Expect(err).To(MatchError(ContainSubstring("too small")))
}

func TestFrameIsBoundToItsPlaceAndKey(t *testing.T) {
	key := testKey(t)
	other, err := ParseKey(bytes.Repeat([]byte("7f"), 32))
	if err != nil {
		t.Fatal(err)
	}
	sameGeneration := &Key{secret: other.secret, generation: key.generation}
	pack, frames := buildPack(t, testID(1), key, contents()...)
	stored := pack[frames[1].Offset : frames[1].Offset+frames[1].Stored]
	for name, c := range map[string]struct {
		key    *Key
		change func(f *Frame)
		t      FrameType
		want   error
	}{
		"as it is":       {key, func(*Frame) {}, FrameData, nil},
		"no key":         {nil, func(*Frame) {}, FrameData, ErrKey},
		"another key":    {other, func(*Frame) {}, FrameData, ErrKey},
		"a false key":    {sameGeneration, func(*Frame) {}, FrameData, ErrDamaged},
		"as a page":      {key, func(*Frame) {}, FramePage, ErrDamaged},
		"another index":  {key, func(f *Frame) { f.Index++ }, FrameData, ErrDamaged},
		"another pack":   {key, func(f *Frame) { f.Pack[3]++ }, FrameData, ErrDamaged},
		"another raw":    {key, func(f *Frame) { f.Raw++ }, FrameData, ErrDamaged},
		"another hash":   {key, func(f *Frame) { f.Hash[31]++ }, FrameData, ErrDamaged},
		"not encrypted":  {key, func(f *Frame) { f.Gen = 0 }, FrameData, ErrDamaged},
		"another length": {key, func(f *Frame) { f.Stored-- }, FrameData, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			f := frames[1]
			c.change(&f)
			got, err := d.OpenFrame(nil, c.key, f, c.t, stored)
			if c.want != nil {
				g.Expect(err).To(MatchError(c.want))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(contents()[1]))
		})
	}
}

// Whatever is wrong with the stored bytes is found, although the hash of what is sealed is spared.
func TestConsumeFrame(t *testing.T) {
	for name, key := range packKeys {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			k := key(t)
			pack, frames := buildPack(t, testID(1), k, contents()...)
			f := frames[1]
			stored := pack[f.Offset : f.Offset+f.Stored]
			consume := func(f Frame, bytes []byte) ([]byte, error) { return d.ConsumeFrame(nil, k, f, FrameData, bytes) }
			g.Expect(consume(f, slices.Clone(stored))).To(Equal(contents()[1]))
			for i := range stored {
				bad := slices.Clone(stored)
				bad[i] ^= 1
				g.Expect(consume(f, bad)).Error().To(MatchError(ErrDamaged))
			}
			for _, wrong := range []func(f *Frame){
				func(f *Frame) { f.Stored-- }, func(f *Frame) { f.Raw++ }, func(f *Frame) { f.Raw = 0 }, func(f *Frame) { f.Offset = 0 },
			} {
				other := f
				wrong(&other)
				g.Expect(consume(other, slices.Clone(stored))).Error().To(MatchError(ErrDamaged))
			}
			f.Hash[0]++
			if f.Gen == 0 {
				g.Expect(consume(f, slices.Clone(stored))).Error().To(MatchError(ErrDamaged))
				return
			}
			g.Expect(consume(f, slices.Clone(stored))).To(Equal(contents()[1]))
			for _, foreign := range []func(f *Frame){func(f *Frame) { f.Index++ }, func(f *Frame) { f.Pack[3]++ }} {
				other := f
				foreign(&other)
				g.Expect(consume(other, slices.Clone(stored))).Error().To(MatchError(ErrDamaged))
			}
			g.Expect(d.ConsumeFrame(nil, k, f, FramePage, slices.Clone(stored))).Error().To(MatchError(ErrDamaged))
			g.Expect(d.ConsumeFrame(nil, nil, f, FrameData, slices.Clone(stored))).Error().To(MatchError(ErrKey))
		})
	}
}

func TestOpenFrameTakesNoMoreThanTheRawLength(t *testing.T) {
	g := NewWithT(t)
	e, d := codecs(t)
	bomb := e.Compress(nil, make([]byte, 10<<20))
	for _, raw := range []uint32{1, 1000, 10<<20 - 1, 10<<20 + 1} {
		f := refOf(&Page{Dirs: []Dir{{}}}, bomb, int(raw)).Frame
		_, err := d.OpenFrame(nil, nil, f, FrameData, bomb)
		g.Expect(err).To(MatchError(ErrDamaged))
	}
}

func TestOpenFrameAllocatesNothing(t *testing.T) {
	for name, key := range packKeys {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			k := key(t)
			pack, frames := buildPack(t, testID(1), k, contents()...)
			f := frames[1]
			stored := pack[f.Offset : f.Offset+f.Stored]
			dst := make([]byte, 0, f.Raw)
			g.Eventually(func() float64 { // the race detector has the decoder's pools forget at random
				return testing.AllocsPerRun(50, func() {
					got, err := d.OpenFrame(dst, k, f, FrameData, stored)
					if err != nil || &got[0] != &dst[:1][0] {
						t.Error(err)
					}
				})
			}).Should(BeZero())
		})
	}
}

func TestPackUnderAnotherNameIsRefused(t *testing.T) {
	g := NewWithT(t)
	_, d := codecs(t)
	pack, _ := buildPack(t, testID(1), nil, contents()...)
	_, _, err := readPack(d, testID(2), nil, pack)
	g.Expect(err).To(MatchError(ErrDamaged))
	_, _, err = readPack(d, testID(1), nil, append(pack, pack...))
	g.Expect(err).To(MatchError(ErrDamaged))
	newer := bytes.Clone(pack)
	newer[len(newer)-FooterSize+skipSize+8]++
	_, _, err = readPack(d, testID(1), nil, newer)
	g.Expect(err).To(MatchError(ErrUnsupported))
	needs := bytes.Clone(pack)
	needs[len(needs)-FooterSize+skipSize+12] |= 0x80
	_, _, err = readPack(d, testID(1), nil, needs)
	g.Expect(err).To(MatchError(ErrUnsupported))
}

func TestZstdPrintsThePack(t *testing.T) {
	for name, want := range map[string][]byte{
		"plain":  bytes.Join(contents(), nil),
		"sealed": {},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			pack, _ := buildPack(t, testID(1), packKeys[name](t), contents()...)
			file := filepath.Join(t.TempDir(), "pack")
			g.Expect(os.WriteFile(file, pack, 0o600)).To(Succeed())
			got, err := exec.CommandContext(t.Context(), "zstd", "-dc", file).Output()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(bytes.Equal(got, want)).To(BeTrue())
		})
	}
}

func TestPackID(t *testing.T) {
	g := NewWithT(t)
	id := NewPackID()
	g.Expect(ParsePackID(id.String())).To(Equal(id))
	g.Expect(NewPackID()).NotTo(Equal(id))
	for _, s := range []string{"", "00", id.String()[1:], "A" + id.String()[1:], id.String() + "00", "x" + id.String()[1:]} {
		_, err := ParsePackID(s)
		g.Expect(err).To(MatchError(ContainSubstring("32 lower-case hex digits")), s)
	}
}
