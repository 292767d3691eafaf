package format

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	. "github.com/onsi/gomega"
)

// No key seals two texts under one nonce, whatever is stored: packs that are finished, packs that are given up in the middle and made
// anew, mistakes of the caller, and tables. A key belongs to a generation and a pack's id, a nonce to a frame's index.
func TestNoNonceIsUsedTwice(t *testing.T) {
	g := NewWithT(t)
	key := ringOf(t, "2:8a", "1:7f")
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[[20]byte]bool{}
	frames := 0
	buf := make([]byte, 8<<20)
	for frames < 200_000 {
		id := NewPackID()
		w, err := NewPackWriter(id, key, buf)
		g.Expect(err).NotTo(HaveOccurred())
		want := 1 + r.IntN(20_000)
		for range want {
			slot, ok := w.Reserve(FrameData, 10, 10)
			g.Expect(ok).To(BeTrue())
			f := slot.Fill([]byte("ten bytes!"))
			nonce := [20]byte(binary.LittleEndian.AppendUint32(id[:], f.Index))
			g.Expect(seen[nonce]).To(BeFalse())
			seen[nonce] = true
			frames++
		}
		if r.IntN(4) == 0 {
			continue // its writer died
		}
		g.Expect(w.Finish()).Error().NotTo(HaveOccurred())
	}
}

// A slot seals once: the second text is refused, and so is the pack.
func TestNonceIsNotUsedAgainByMistake(t *testing.T) {
	g := NewWithT(t)
	w, err := NewPackWriter(testID(1), ringOf(t, "2:8a"), make([]byte, 1<<20))
	g.Expect(err).NotTo(HaveOccurred())
	slot, _ := w.Reserve(FrameData, 5, 5)
	f := slot.Fill([]byte("first"))
	sealed := string(w.buf[f.Offset : f.Offset+f.Stored])
	slot.Fill([]byte("other"))
	g.Expect(string(w.buf[f.Offset : f.Offset+f.Stored])).To(Equal(sealed))
	_, err = w.Finish()
	g.Expect(err).To(MatchError(ContainSubstring("it was filled before")))
	g.Expect(errors.Is(err, ErrKey)).To(BeFalse())
}

// Different tables have different keys, equal ones equal bytes.
func TestTablesShareNoKey(t *testing.T) {
	g := NewWithT(t)
	e, _ := codecs(t)
	key := ringOf(t, "2:8a")
	seals := map[string]bool{}
	for i := range 1000 {
		refs := sampleTable()
		refs[0].Frame.Hash[0], refs[0].Frame.Hash[1] = byte(i), byte(i>>8)
		table, err := e.Table(key, refs)
		g.Expect(err).NotTo(HaveOccurred())
		again, err := e.Table(key, refs)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(again).To(Equal(table))
		seals[string(table[tableHead:tableHead+tableSeal])] = true
	}
	g.Expect(seals).To(HaveLen(1000))
}
