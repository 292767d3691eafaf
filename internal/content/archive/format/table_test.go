package format

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func sampleTable() []PageRef {
	firsts := []string{"", "", "a", "a/b", "a/b/c", "a.d", "z"}
	refs := make([]PageRef, len(firsts))
	offset := uint32(headerSize)
	for i, first := range firsts {
		f := Frame{Pack: testID(byte(1 + i/4)), Index: uint32(i % 4), Offset: offset, Stored: uint32(1000 + i), Raw: uint32(3000 + i),
			Hash: sumOf(fmt.Sprint("page ", i))}
		offset += f.Stored
		if i == 3 {
			offset = headerSize
		}
		refs[i] = PageRef{Frame: f, First: first, Entries: uint32(100 + i)}
	}
	refs[1].Name, refs[6].Name, refs[6].Frame.Gen = "m", "odd\nname\xff", 9
	return refs
}

// ascending are n pages of one directory.
func ascending(ref PageRef, n int) []PageRef {
	refs := slices.Repeat([]PageRef{ref}, n)
	for i := range refs[1:] {
		refs[1+i].Name = fmt.Sprintf("%07d", i)
	}
	return refs
}

func TestTableRoundTrip(t *testing.T) {
	deep := strings.TrimSuffix(strings.Repeat("d/", MaxPath/2), "/")
	many := ascending(sampleTable()[0], 20_000)
	for i := range many[:10_000] {
		many[10_000+i].First, many[10_000+i].Name = fmt.Sprintf("%07d", i), ""
	}
	for name, refs := range map[string][]PageRef{
		"sample":   sampleTable(),
		"one page": sampleTable()[:1],
		"deep":     {sampleTable()[0], {First: deep, Entries: 1, Frame: sampleTable()[1].Frame}},
		"large":    many,
	} {
		for kind, key := range packKeys {
			t.Run(name+" "+kind, func(t *testing.T) {
				g := NewWithT(t)
				e, d := codecs(t)
				table, err := e.Table(key(t), refs)
				g.Expect(err).NotTo(HaveOccurred())
				got, err := d.Table(key(t), table)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(len(got)).To(Equal(len(refs)))
				for i := range refs {
					if got[i] != refs[i] {
						t.Fatalf("page %d: got %+v, want %+v", i, got[i], refs[i])
					}
				}
				again, _ := codecs(t)
				same, err := again.Table(key(t), refs)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(bytes.Equal(same, table)).To(BeTrue(), "equal tables have equal bytes")
			})
		}
	}
}

func TestTableRefusesWhatBreaksARule(t *testing.T) {
	for name, change := range map[string]func(refs []PageRef) []PageRef{
		"no page":             func([]PageRef) []PageRef { return nil },
		"not the root first":  func(r []PageRef) []PageRef { return r[2:] },
		"out of order":        func(r []PageRef) []PageRef { r[3].First = "Z"; return r },
		"twice":               func(r []PageRef) []PageRef { r[2].First, r[2].Name = "", "m"; return r },
		"names descend":       func(r []PageRef) []PageRef { r[2].First, r[2].Name = "", "l"; return r },
		"no name":             func(r []PageRef) []PageRef { r[6].Name = ".."; return r },
		"root continued":      func(r []PageRef) []PageRef { r[0].Name = "a"; return r },
		"no path":             func(r []PageRef) []PageRef { r[6].First = "z//"; return r },
		"no rows":             func(r []PageRef) []PageRef { r[6].Entries = 0; return r },
		"too many rows":       func(r []PageRef) []PageRef { r[6].Entries = MaxPageRows + 1; return r },
		"too large a page":    func(r []PageRef) []PageRef { r[6].Frame.Raw = MaxPageRaw + 1; return r },
		"frame out of a pack": func(r []PageRef) []PageRef { r[6].Frame.Offset = MaxPack; return r },
		"frame in the header": func(r []PageRef) []PageRef { r[0].Frame.Offset--; return r },
		"too many rows in all": func(r []PageRef) []PageRef {
			r[0].Entries = MaxPageRows
			return ascending(r[0], MaxRows/MaxPageRows+1)
		},
		"too large in all": func(r []PageRef) []PageRef {
			r[0].Frame.Raw = MaxPageRaw
			return ascending(r[0], maxTreeRaw/MaxPageRaw+1)
		},
		"empty frame": func(r []PageRef) []PageRef { r[0].Frame.Stored = 0; return r },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			e, _ := codecs(t)
			refs := change(sampleTable())
			_, err := e.Table(nil, refs)
			g.Expect(err).To(HaveOccurred())
			g.Expect(err).NotTo(MatchError(ErrDamaged), "it is not stored, so it is not damaged")
			_, err = decodeTable(tableBytes(refs))
			g.Expect(err).To(MatchError(ErrDamaged))
		})
	}
}

func TestTablePathsCannotTakeMoreThanTheirLimit(t *testing.T) {
	g := NewWithT(t)
	deep := strings.Repeat("d/", MaxPath/2-2)
	refs := []PageRef{sampleTable()[0]}
	for i := range maxTablePaths/MaxPath + 1 {
		refs = append(refs, PageRef{First: fmt.Sprintf("%s%03d", deep, i), Entries: 1, Frame: sampleTable()[0].Frame})
	}
	raw := tableBytes(refs)
	g.Expect(len(raw)).To(BeNumerically("<", 1<<20), "a small table can ask for much")
	_, err := decodeTable(raw)
	g.Expect(err).To(MatchError(ErrDamaged))
}

func TestTableSaysWhatItNeeds(t *testing.T) {
	e, d := codecs(t)
	key := testKey(t)
	sealed, err := e.Table(key, sampleTable())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := e.Table(nil, sampleTable())
	if err != nil {
		t.Fatal(err)
	}
	changed := func(table []byte, at int, b byte) []byte {
		c := bytes.Clone(table)
		c[at] = b
		return c
	}
	for name, c := range map[string]struct {
		key   *Key
		table []byte
		want  error
	}{
		"sealed without key":      {nil, sealed, ErrKey},
		"other generation":        {&Key{secret: key.secret, generation: 8}, sealed, ErrKey},
		"false key":               {&Key{secret: [32]byte{1}, generation: 7}, sealed, ErrDamaged},
		"plain with key":          {key, plain, ErrKey},
		"newer":                   {nil, changed(plain, 8, 2), ErrUnsupported},
		"needs a feature":         {nil, changed(plain, 12, 1), ErrUnsupported},
		"has reserved bytes":      {nil, changed(plain, 10, 1), ErrDamaged},
		"an ignorable feature":    {nil, changed(plain, 16, 1), ErrDamaged}, // the bit is fine, the checksum is not
		"no table":                {nil, []byte("ws-table"), ErrDamaged},
		"larger than it may be":   {nil, make([]byte, MaxTable+1), ErrDamaged},
		"generation taken away":   {nil, changed(sealed, 20, 0), ErrDamaged},
		"raw length out of range": {key, resealed(t, key, plain, MaxTable+1), ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := d.Table(c.key, c.table)
			g.Expect(err).To(MatchError(c.want))
		})
	}
	g := NewWithT(t)
	g.Expect(TableGeneration(sealed)).To(BeEquivalentTo(7))
	g.Expect(TableGeneration(plain)).To(BeZero())
}

// resealed is a table that claims a raw length, under a key that opens it.
func resealed(tb testing.TB, key *Key, plain []byte, raw uint32) []byte {
	tb.Helper()
	head := bytes.Clone(plain[:tableHead])
	binary.LittleEndian.PutUint32(head[20:], key.generation)
	binary.LittleEndian.PutUint32(head[24:], raw)
	table, err := key.sealTable(head, plain[tableHead+tableSeal:])
	if err != nil {
		tb.Fatal(err)
	}
	return table
}
