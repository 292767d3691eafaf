package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

func written(tb testing.TB, ix *Index) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := ix.write(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// FuzzDecodeIndex reads files that may be anything: an index is only a cache, so a bad one is refused and nothing else.
func FuzzDecodeIndex(f *testing.F) {
	good := written(f, exampleIndex())
	f.Add(good[:len(good)-32], true)
	f.Add(good, false)
	f.Add([]byte(indexMagic), true)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal { // damage that the checksum does not show
			sum := sha256.Sum256(b)
			b = append(bytes.Clone(b), sum[:]...)
		}
		ix, err := decodeIndex(b)
		if err != nil {
			if !errors.Is(err, errIndex) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
		if !bytes.Equal(written(t, ix), b) {
			t.Fatal("the index changed")
		}
	})
}

// pageSource is a store with one pack.
type pageSource []byte

func (s pageSource) ReadPack(_ context.Context, _ format.PackID, offset int64, buf []byte) error {
	if offset > int64(len(s)) || copy(buf, s[offset:]) < len(buf) {
		return errors.New("too short")
	}
	return nil
}

// backupOf stores a page as a backup of its own; false if it cannot be one.
func backupOf(t *testing.T, page *format.Page) (Root, pageSource, bool) {
	t.Helper()
	enc, err := format.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	z, raw, err := enc.Page(nil, page)
	if err != nil || page.Follows(nil) != nil {
		return Root{}, nil, false
	}
	id := format.NewPackID()
	w, err := format.NewPackWriter(id, nil, make([]byte, len(z)+packSlack))
	if err != nil {
		t.Fatal(err)
	}
	slot, _ := w.Reserve(format.FramePage, raw, len(z))
	ref := page.Ref(slot.Fill(z))
	data, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	table, err := enc.Table(nil, []format.PageRef{ref})
	if err != nil {
		return Root{}, nil, false
	}
	packs := []Pack{{ID: id, Size: int64(len(data))}}
	for i := range page.Frames {
		packs = append(packs, Pack{ID: page.Frames[i].Pack, Size: format.MaxPack})
	}
	return Root{Table: table, Packs: packs}, data, true
}

// twoPacks reads from the pack that has so many bytes.
type twoPacks map[format.PackID]pageSource

func (p twoPacks) ReadPack(ctx context.Context, id format.PackID, offset int64, buf []byte) error {
	return p[id].ReadPack(ctx, id, offset, buf)
}

// rawPage encodes a page, and does not compress it.
func rawPage(f *testing.F, page *format.Page) []byte {
	f.Helper()
	enc, err := format.NewEncoder()
	if err != nil {
		f.Fatal(err)
	}
	dec, err := format.NewDecoder()
	if err != nil {
		f.Fatal(err)
	}
	defer dec.Close()
	z, raw, err := enc.Page(nil, page)
	if err != nil {
		f.Fatal(err)
	}
	frame := format.Frame{Offset: 64, Stored: uint32(len(z)), Raw: uint32(raw), Hash: sha256.Sum256(z)}
	plain, err := dec.OpenFrame(make([]byte, 0, raw), nil, frame, format.FramePage, z)
	if err != nil {
		f.Fatal(err)
	}
	return bytes.Clone(plain)
}

// FuzzDiff compares manifests that were put together at random: forwards and backwards it finds as many differences, and none
// between a tree and itself.
func FuzzDiff(f *testing.F) {
	meta := format.Meta{Mode: 0o755, Sec: 5}
	x := &format.Page{Dirs: []format.Dir{{Meta: meta, Entries: []format.Entry{{Name: "a", Kind: format.KindFile}, {Name: "b", Kind: format.KindFIFO}}}, {Path: "d", Meta: meta}}}
	y := &format.Page{Dirs: []format.Dir{{Meta: meta, Entries: []format.Entry{{Name: "a", Kind: format.KindFile, Meta: meta}}}, {Path: "e", Meta: meta}}}
	f.Add(rawPage(f, x), rawPage(f, y))
	f.Add(rawPage(f, y), rawPage(f, y))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, errX := format.DecodePage(a)
		y, errY := format.DecodePage(b)
		if errX != nil || errY != nil {
			return
		}
		before, packA, okA := backupOf(t, x)
		after, packB, okB := backupOf(t, y)
		if !okA || !okB {
			return
		}
		source := twoPacks{before.Packs[0].ID: packA, after.Packs[0].ID: packB}
		count := func(a, b Root) (n int, err error) {
			err = Diff(t.Context(), a, b, source, nil, func(Change) error { n++; return nil })
			return n, err
		}
		there, err := count(before, after)
		back, backErr := count(after, before)
		if there != back || (err == nil) != (backErr == nil) {
			t.Fatalf("%d differences (%v), and %d backwards (%v)", there, err, back, backErr)
		}
		if none, err := count(before, before); none != 0 {
			t.Fatalf("%d differences from itself (%v)", none, err)
		}
	})
}

// FuzzSections checks the arithmetic with which the pieces of large files are found: nothing is lost, and nothing twice.
func FuzzSections(f *testing.F) {
	f.Add([]byte{0, 10, 20, 30, 10, 20, 5, 25})
	f.Fuzz(func(t *testing.T, b []byte) {
		var covered [256]int
		var list []section
		for ; len(b) > 3; b = b[2:] {
			s := section{int64(min(b[0], b[1])), int64(max(b[0], b[1]))}
			if s.from < s.to && !slices.ContainsFunc(list, func(x section) bool { return x.from < s.to && s.from < x.to }) {
				list = append(list, s)
				count(&covered, s, 1)
			}
		}
		list = mergeSections(list)
		if len(b) > 1 && len(list) > 0 {
			part := section{list[0].from + int64(b[0])%(list[0].to-list[0].from), list[0].to}
			if meets(list, part) != (covered[part.from] == 1) {
				t.Fatalf("%v is among %v, or is not", part, list)
			}
			count(&covered, part, -1)
			list = slices.Replace(list, 0, 1, without(list[0], part)...)
		}
		for _, s := range list {
			count(&covered, s, -1)
		}
		if covered != [256]int{} {
			t.Fatalf("bytes are missing, or there twice: %v", covered)
		}
	})
}

func count(covered *[256]int, s section, by int) {
	for i := s.from; i < s.to; i++ {
		covered[i] += by
	}
}
