package format

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
)

// Limits of page tables.
const (
	MaxPages      = 1 << 18  // pages of a tree
	MaxTable      = 32 << 20 // bytes, encoded or not
	MaxRows       = 1 << 24  // rows of a tree
	maxTreeRaw    = 2 << 30  // bytes of all pages, decoded
	maxTablePaths = 64 << 20 // bytes of the paths in memory
)

const (
	tableMagic = "ws-table"
	tableHead  = 28 // magic, version and features, key generation, length of what is compressed
	tableSeal  = 32
)

// Columns of a table, in their order.
const (
	tableColPaths  = iota // per page: the end of its first directory's path, and NUL
	tableColNames         // per page: the name that it continues that directory with, and NUL
	tableColRows          // per page: bytes shared with the path before, number of rows
	tableColFrames        // where the pages lie
	tableColPacks         // ids of the packs, with their key generations
	tableColHashes        // per page
	tableColumns
)

// Table encodes a page table, sealed if there is a key. Equal tables give equal bytes.
func (e *Encoder) Table(key *Key, refs []PageRef) ([]byte, error) {
	if err := checkTable(refs); err != nil {
		return nil, fmt.Errorf("encode page table: %w", err)
	}
	raw := tableBytes(refs)
	z := e.zstd.EncodeAll(raw, nil)
	if len(raw) > MaxTable || tableHead+tableSeal+len(z)+tagSize > MaxTable {
		return nil, fmt.Errorf("encode page table: %d pages take %d bytes, more than %d", len(refs), len(raw), MaxTable)
	}
	head := appendFeatures([]byte(tableMagic))
	generation := uint32(0)
	if key != nil {
		generation = key.generation
	}
	head = binary.LittleEndian.AppendUint32(head, generation)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(raw)))
	if key == nil {
		sum := trailerHash(head, z)
		return append(append(head, sum[:]...), z...), nil
	}
	return key.sealTable(head, z)
}

// sealTable encrypts with a key of its own for every table, derived from a salt that depends on the content.
func (k *Key) sealTable(head, z []byte) ([]byte, error) {
	salt, err := k.synthesize(head, z)
	if err != nil {
		return nil, err
	}
	aead, err := k.derive("table", salt)
	if err != nil {
		return nil, err
	}
	iv := nonce(0)
	b := append(head, salt...)
	return aead.Seal(b, iv[:], z, head), nil
}

func tableBytes(refs []PageRef) []byte {
	var frames frameWriter
	frames.reset()
	cols := make(columns, tableColumns)
	prev := ""
	for i := range refs {
		r := &refs[i]
		frames.add(r.Frame)
		n := shared(prev, r.First)
		b := binary.AppendUvarint(cols[tableColRows], uint64(n))
		cols[tableColRows] = binary.AppendUvarint(b, uint64(r.Entries))
		cols[tableColPaths] = append(append(cols[tableColPaths], r.First[n:]...), 0)
		cols[tableColNames] = append(append(cols[tableColNames], r.Name...), 0)
		prev = r.First
	}
	cols[tableColPacks], cols[tableColFrames], cols[tableColHashes] = frames.ids, frames.rows, frames.sums
	return appendColumns(nil, []uint64{uint64(len(frames.packs)), uint64(len(refs))}, cols)
}

// Compare says where a page begins: before the place of a name in a directory (-1), there, or after it. The place of a
// directory itself is that of an empty name. All that a tree has at a place, the last page has that begins there or before.
func (r *PageRef) Compare(dir, name string) int {
	return cmp.Or(ComparePaths(r.First, dir), cmp.Compare(r.Name, name))
}

// checkTable holds a table against every rule, before it is written and after it was read.
func checkTable(refs []PageRef) error {
	if len(refs) == 0 || len(refs) > MaxPages || refs[0].First != "" || refs[0].Name != "" {
		return fmt.Errorf("it has %d pages, or does not begin with the root", len(refs))
	}
	prev, paths, rows, raw := "", 0, 0, int64(0)
	for i := range refs {
		r := &refs[i]
		if i > 0 && refs[i-1].Compare(r.First, r.Name) >= 0 {
			return fmt.Errorf("page %d cannot begin with %.100q in %.100q, after one with %.100q", i, r.Name, r.First, prev)
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("page %d: %w", i, err)
		}
		paths += pathCost(prev, r.First) + len(r.Name)
		rows, raw = rows+int(r.Entries), raw+int64(r.Frame.Raw)
		prev = r.First
	}
	if paths > maxTablePaths {
		return fmt.Errorf("its paths and names have %d bytes", paths)
	}
	if rows > MaxRows || raw > maxTreeRaw {
		return fmt.Errorf("the tree has %d rows in %d bytes, more than %d or %d", rows, raw, MaxRows, int64(maxTreeRaw))
	}
	return nil
}

// check holds a row of a table against the rules that need no other row.
func (r *PageRef) check() error {
	if !validPath(r.First) || r.Name != "" && !validName(r.Name) {
		return fmt.Errorf("it cannot begin with %.100q in %.100q", r.Name, r.First)
	}
	if r.Entries < 1 || r.Entries > MaxPageRows || r.Frame.Raw > MaxPageRaw || !r.Frame.plausible() {
		return fmt.Errorf("it has %d rows in frame %d of %d bytes", r.Entries, r.Frame.Index, r.Frame.Raw)
	}
	return nil
}

// TableGeneration is the generation of the key that a page table is sealed with, 0 if it is not sealed.
func TableGeneration(table []byte) (uint32, error) {
	if len(table) < tableHead+tableSeal || len(table) > MaxTable || string(table[:8]) != tableMagic {
		return 0, damaged("page table", "%d bytes that are none", len(table))
	}
	if err := readFeatures("page table", table[8:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(table[20:]), nil
}

// Table decodes a page table. With a key, one that is not sealed is refused: whoever can write to the store could have
// made it. A caller that trusts the store asks [TableGeneration] and passes no key.
func (d *Decoder) Table(key *Key, table []byte) ([]PageRef, error) {
	generation, err := TableGeneration(table)
	if err != nil {
		return nil, err
	}
	head, seal, z := table[:tableHead], table[tableHead:][:tableSeal], table[tableHead+tableSeal:]
	switch {
	case generation != 0:
		z, err = key.openTable(generation, head, seal, z)
	case key != nil:
		err = fmt.Errorf("page table: it is not encrypted although there is a key: %w", ErrKey)
	case trailerHash(head, z) != Hash(seal):
		err = damaged("page table", "the checksum differs")
	}
	if err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[24:])
	if size > MaxTable {
		return nil, damaged("page table", "%d bytes are more than %d", size, MaxTable)
	}
	if d.raw, err = d.decompress(d.raw, int(size), z); err != nil {
		return nil, damaged("page table", "%v", err)
	}
	return decodeTable(d.raw)
}

func (k *Key) openTable(generation uint32, head, salt, sealed []byte) ([]byte, error) {
	k, err := k.of("page table", generation)
	if err != nil {
		return nil, err
	}
	aead, err := k.derive("table", salt)
	if err != nil {
		return nil, err
	}
	iv := nonce(0)
	z, err := aead.Open(nil, iv[:], sealed, head)
	if err != nil {
		return nil, k.refused("page table")
	}
	return z, nil
}

func decodeTable(raw []byte) ([]PageRef, error) {
	var counts [2]uint64
	var cols [tableColumns]reader
	if err := readColumns("page table", raw, counts[:], cols[:]); err != nil {
		return nil, err
	}
	frames, err := readFrames("page table", counts[0], counts[1], cols[tableColPacks], cols[tableColFrames], cols[tableColHashes])
	if err != nil {
		return nil, err
	}
	if len(frames) > MaxPages {
		return nil, damaged("page table", "it has %d pages", len(frames))
	}
	refs := make([]PageRef, len(frames))
	for i := range refs {
		refs[i].Frame = frames[i]
	}
	if err := readFirsts(refs, cols[tableColRows], cols[tableColPaths], cols[tableColNames]); err != nil {
		return nil, err
	}
	if err := checkTable(refs); err != nil {
		return nil, damaged("page table", "%v", err)
	}
	return refs, nil
}

func readFirsts(refs []PageRef, rows, ends, names reader) error {
	var memory pathReader
	if !memory.measure(rows, ends, len(refs), 1, maxTablePaths) {
		return damaged("page table", "its paths do not fit, or are too long")
	}
	for i := range refs {
		refs[i].First = memory.next(&rows, &ends)
		refs[i].Entries = uint32(rows.upTo(MaxPageRows))
		refs[i].Name = string(names.text())
	}
	if !rows.done() || !ends.done() || !names.done() {
		return damaged("page table", "its columns do not fit")
	}
	return nil
}

// pathReader reads paths that begin with some of the path before. One that begins with all of it shares its memory.
type pathReader struct {
	memory strings.Builder
	start  int // of the path before
}

// measure takes the memory for n paths. What they share with the path before stands in rows, with so many other numbers
// after each; their ends stand in ends. It is false if that cannot be, or needs more than the limit.
func (p *pathReader) measure(rows, ends reader, n, others int, limit uint64) bool {
	length, total := 0, 0
	for range n {
		same, rest := int(rows.upTo(uint64(length))), len(ends.text())
		if same < length {
			total += same
		}
		total += rest
		length = same + rest
		for range others {
			rows.uvarint()
		}
		if length > MaxPath || uint64(total) > limit {
			return false
		}
	}
	if !rows.done() || !ends.done() {
		return false
	}
	p.memory.Grow(total)
	return true
}

// next reads a path: how much it shares from rows, its end from ends.
func (p *pathReader) next(rows, ends *reader) string {
	prev := p.memory.String()[p.start:]
	n := rows.uvarint()
	rest := ends.text()
	if n < uint64(len(prev)) {
		p.start = p.memory.Len()
		p.memory.WriteString(prev[:n])
	}
	p.memory.Write(rest)
	return p.memory.String()[p.start:]
}
