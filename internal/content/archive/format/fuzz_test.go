package format

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"runtime"
	"testing"
)

// checkError fails if an error is not one of those that the decoders promise.
func checkError(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrKey) {
		t.Fatalf("unexpected kind of error: %v", err)
	}
}

// seeds are an input and what small damage makes of it.
func seeds(f *testing.F, good []byte) {
	f.Helper()
	f.Add(good)
	f.Add(good[:len(good)/2])
	for _, i := range []int{0, 1, 3, 5, 8, 13, 21, 34, 55, 89} {
		if i < len(good) {
			bad := bytes.Clone(good)
			bad[i] ^= 0xff
			f.Add(bad)
		}
	}
	f.Add([]byte{})
}

func FuzzDecodePage(f *testing.F) {
	e, err := NewEncoder()
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range []*Page{samplePage(), smallPage(), {Dirs: []Dir{{}}}} {
		seeds(f, bytes.Clone(e.page.write(p)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := DecodePage(raw)
		if err != nil {
			checkError(t, err)
			return
		}
		// What can be read can be written, and read again as the same.
		first, err := e.page.encode(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodePage(bytes.Clone(first))
		if err != nil {
			t.Fatal(err)
		}
		if digestOf(again) != digestOf(p) {
			t.Fatal("the page changed")
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	seeds(f, tableBytes(sampleTable()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		refs, err := decodeTable(raw)
		if err != nil {
			checkError(t, err)
			return
		}
		again, err := decodeTable(tableBytes(refs))
		if err != nil || len(again) != len(refs) || again[len(refs)-1] != refs[len(refs)-1] {
			t.Fatalf("the table changed: %v", err)
		}
	})
}

func FuzzTable(f *testing.F) {
	seeds(f, golden(f, "plain.table"))
	seeds(f, golden(f, "sealed.table"))
	key := testKey(f)
	_, d := codecs(f)
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, k := range []*Key{nil, key} {
			if _, err := d.Table(k, table); err != nil {
				checkError(t, err)
			}
		}
	})
}

func FuzzReadPack(f *testing.F) {
	seeds(f, golden(f, "plain.pack"))
	seeds(f, golden(f, "sealed.pack"))
	key := testKey(f)
	_, d := codecs(f)
	f.Fuzz(func(t *testing.T, pack []byte) {
		for id, k := range map[PackID]*Key{testID(1): nil, testID(2): key} {
			if _, _, err := readPack(d, id, k, pack); err != nil {
				checkError(t, err)
			}
		}
	})
}

// FuzzReadTrailer reaches the rows, which the footer's checksum otherwise hides.
func FuzzReadTrailer(f *testing.F) {
	pack := golden(f, "plain.pack")
	good, err := ReadFooter(testID(1), int64(len(pack)), pack[len(pack)-FooterSize:])
	if err != nil {
		f.Fatal(err)
	}
	seeds(f, pack[good.Offset:good.Offset+good.Length])
	f.Fuzz(func(t *testing.T, stored []byte) {
		footer := good
		footer.Length = uint32(len(stored))
		footer.Hash = trailerHash(stored, footer.ident[:])
		rows, err := ReadTrailer(nil, footer, stored)
		if err != nil {
			checkError(t, err)
			return
		}
		for _, r := range rows {
			if int(r.Offset)+int(r.Stored) > int(footer.Offset) {
				t.Fatalf("frame %d lies outside", r.Index)
			}
		}
	})
}

func FuzzOpenFrame(f *testing.F) {
	e, d := codecs(f)
	for _, c := range contents() {
		f.Add(e.Compress(nil, c), uint32(len(c)))
	}
	f.Add(e.Compress(nil, make([]byte, 1<<20)), uint32(100))
	f.Add(golden(f, "page.zst"), uint32(700))
	f.Fuzz(func(t *testing.T, stored []byte, raw uint32) {
		raw %= 1 << 20 // what the test itself would take the memory for
		frame := Frame{Pack: testID(1), Offset: headerSize, Stored: uint32(len(stored)), Raw: raw, Hash: sha256.Sum256(stored)}
		got, err := d.OpenFrame(nil, nil, frame, FrameData, stored)
		if err != nil {
			checkError(t, err)
			return
		}
		if len(got) != int(raw) {
			t.Fatalf("%d bytes instead of %d", len(got), raw)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("7:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := ParseKey(data); err == nil && k.Generation() == 0 {
			t.Fatal("a key without generation")
		}
	})
}

// A page of a few bytes can claim anything; what it is given must be in proportion to its size.
func TestHostilePageTakesLittleMemory(t *testing.T) {
	const huge = 1 << 40
	claim := func(counts []uint64, change func(cols columns)) []byte {
		cols := make(columns, pageColumns)
		change(cols)
		return appendColumns(nil, counts, cols)
	}
	varint := func(v ...uint64) []byte {
		var b []byte
		for _, n := range v {
			b = appendSigned(b, -int64(n/2)-1)
		}
		return b
	}
	for name, raw := range map[string][]byte{
		"frames":      claim([]uint64{1, huge, 1, 0, 1, 0}, func(columns) {}),
		"packs":       claim([]uint64{huge, 1, 1, 0, 1, 0}, func(c columns) { c[colFrameHashes] = make([]byte, hashSize) }),
		"classes":     claim([]uint64{0, 0, huge, 0, 1, 0}, func(columns) {}),
		"sets":        claim([]uint64{0, 0, 1, huge, 1, 0}, func(columns) {}),
		"directories": claim([]uint64{0, 0, 1, 0, huge, 0}, func(columns) {}),
		"entries":     claim([]uint64{0, 0, 1, 0, 1, huge}, func(columns) {}),
		"overflow":    claim([]uint64{0, 0, 1, 0, 1, 1<<64 - 1}, func(columns) {}),
		"attributes":  claim([]uint64{0, 0, 0, 1, 1, 0}, func(c columns) { c[colXattrs] = varint(huge) }),
		"column":      append([]byte{version, 0, 0, 0, 0, 0, 0, 1, 0, pageColumns}, varint(huge, huge)...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := DecodePage(raw)
			runtime.ReadMemStats(&after)
			checkError(t, err)
			if taken := after.TotalAlloc - before.TotalAlloc; taken > 64<<10 {
				t.Fatalf("%d bytes were taken for a page of %d", taken, len(raw))
			}
		})
	}
}
