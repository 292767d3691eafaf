package format

import (
	"encoding/binary"
)

// Footer says where the trailer of a pack lies.
type Footer struct {
	ID     PackID
	Gen    uint32 // generation of the key; 0 if the pack is not encrypted
	Offset uint32 // of the trailer's content, in the pack
	Length uint32 // of the trailer's content, in bytes
	Hash   Hash   // of the trailer's content and of the footer
	ident  [footerIdent]byte
}

// ReadFooter reads the last [FooterSize] bytes of a pack of that id and size.
func ReadFooter(id PackID, size int64, footer []byte) (Footer, error) {
	what := "pack " + id.String()
	if len(footer) != FooterSize || size < headerSize+FooterSize || size > MaxPack {
		return Footer{}, damaged(what, "%d bytes are no size of a pack", size)
	}
	if !isSkip(footer, kindFooter, FooterSize-skipSize) {
		return Footer{}, damaged(what, "it has no footer")
	}
	ident := footer[skipSize:][:footerIdent]
	generation, err := readIdent(what, id, ident)
	if err != nil {
		return Footer{}, err
	}
	f := Footer{ID: id, Gen: generation, ident: [footerIdent]byte(ident), Hash: Hash(footer[skipSize+footerIdent:]),
		Offset: binary.LittleEndian.Uint32(ident[identSize:]), Length: binary.LittleEndian.Uint32(ident[identSize+4:])}
	if f.Offset < headerSize+skipSize || int64(f.Offset)+int64(f.Length)+FooterSize != size {
		return Footer{}, damaged(what, "its trailer is not where the footer says")
	}
	return f, nil
}

func isSkip(b []byte, kind, length uint32) bool {
	return binary.LittleEndian.Uint32(b) == skippable+kind && binary.LittleEndian.Uint32(b[4:]) == length
}

// ReadTrailer reads the frame table of a pack from the bytes that its footer names. They are not changed.
func ReadTrailer(key *Key, f Footer, stored []byte) ([]PackFrame, error) {
	what := "trailer of pack " + f.ID.String()
	if len(stored) != int(f.Length) || trailerHash(stored, f.ident[:]) != f.Hash {
		return nil, damaged(what, "the checksum differs")
	}
	table, err := f.open(what, key, stored)
	if err != nil {
		return nil, err
	}
	if len(table) < 4 {
		return nil, damaged(what, "it is too short")
	}
	count := binary.LittleEndian.Uint32(table)
	if count > MaxFrames || len(table) != 4+int(count)*trailerRow {
		return nil, damaged(what, "%d frames in %d bytes", count, len(table))
	}
	return f.rows(what, table[4:])
}

func (f Footer) open(what string, key *Key, stored []byte) ([]byte, error) {
	if f.Gen == 0 {
		return stored, nil
	}
	key, err := key.of(what, f.Gen)
	if err != nil {
		return nil, err
	}
	if len(stored) < tagSize {
		return nil, damaged(what, "it is too short")
	}
	aead, err := key.derive("pack", f.ID[:])
	if err != nil {
		return nil, err
	}
	n, ad := nonce(trailerIndex), associated(f.ID, trailerType, trailerIndex, uint32(len(stored)-tagSize))
	table, err := aead.Open(nil, n[:], stored, ad[:])
	if err != nil {
		return nil, key.refused(what)
	}
	return table, nil
}

// rows reads the frames, which fill the pack from the header to the trailer without a gap.
func (f Footer) rows(what string, table []byte) ([]PackFrame, error) {
	gap := uint32(0)
	if f.Gen != 0 {
		gap = skipSize
	}
	frames := make([]PackFrame, 0, len(table)/trailerRow)
	end := uint32(headerSize)
	for ; len(table) > 0; table = table[trailerRow:] {
		p := PackFrame{Type: FrameType(table[0]), Frame: Frame{Pack: f.ID, Gen: f.Gen, Index: uint32(len(frames)),
			Offset: binary.LittleEndian.Uint32(table[1:]), Stored: binary.LittleEndian.Uint32(table[5:]),
			Raw: binary.LittleEndian.Uint32(table[9:]), Hash: Hash(table[13:trailerRow])}}
		if p.Type != FrameData && p.Type != FramePage {
			return nil, unsupported(what, "frame %d has type %d", p.Index, p.Type)
		}
		if p.Offset != end+gap || !p.plausible() {
			return nil, damaged(what, "frame %d is out of place", p.Index)
		}
		end = p.Offset + p.Stored
		frames = append(frames, p)
	}
	if end != f.Offset-skipSize {
		return nil, damaged(what, "the frames do not end where the trailer begins")
	}
	return frames, nil
}

// plausible checks that a frame can lie in a pack.
func (f Frame) plausible() bool {
	least := uint64(1)
	if f.Gen != 0 {
		least = tagSize + 1
	}
	return f.Index < MaxFrames && f.Offset >= headerSize && uint64(f.Stored) >= least && f.Raw >= 1 && f.Raw <= MaxRaw &&
		uint64(f.Offset)+uint64(f.Stored) <= MaxPack-FooterSize
}
