package format

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// What stands at the beginning and the end of a pack.
const (
	packMagic = "ws-pack\x00"
	version   = 1 // of packs, pages and tables: a reader refuses others

	skippable    = 0x184D2A50 // the magic numbers of zstd's skippable frames: the last four bits are free
	kindHeader   = 0
	kindSealed   = 1
	kindTrailer  = 2
	kindFooter   = 3
	skipSize     = 8  // magic number and length
	hashSize     = 32 // SHA-256
	identSize    = 40
	headerSize   = skipSize + identSize
	footerIdent  = identSize + 8 // the part of the footer that its hash covers
	trailerRow   = 45
	trailerIndex = 1<<32 - 1 // of the trailer, where frames have theirs
	trailerType  = 255
)

// Limits of packs.
const (
	PackTarget = 32 << 20 // bytes at which a writer closes a pack
	MaxPack    = 64 << 20 // bytes that no pack exceeds
	MaxRaw     = 64 << 20 // bytes of a decoded frame
	MaxFrames  = 1 << 16  // frames of a pack
	FooterSize = skipSize + footerIdent + hashSize
)

// NewPackID returns a random id. One id is used for one pack, whatever becomes of it.
func NewPackID() PackID {
	var id PackID
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return id
}

// ParsePackID reads 32 lower-case hex digits.
func ParsePackID(s string) (PackID, error) {
	var id PackID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return PackID{}, fmt.Errorf("parse pack id %q: it has 32 lower-case hex digits", s)
	}
	copy(id[:], b)
	return id, nil
}

// String returns 32 hex digits.
func (id PackID) String() string { return hex.EncodeToString(id[:]) }

func appendSkip(b []byte, kind, length uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, skippable+kind)
	return binary.LittleEndian.AppendUint32(b, length)
}

// appendFeatures writes the version and the two sets of feature bits, of which none is in use yet.
func appendFeatures(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, version)
	return append(b, make([]byte, 2+4+4)...)
}

// readFeatures checks what appendFeatures wrote. Bits that a reader must know are refused, the ignorable ones are not.
func readFeatures(what string, b []byte) error {
	if v := binary.LittleEndian.Uint16(b); v != version {
		return unsupported(what, "it has version %d, this is %d", v, version)
	}
	if reserved := binary.LittleEndian.Uint16(b[2:]); reserved != 0 {
		return damaged(what, "reserved bytes are not zero")
	}
	if needed := binary.LittleEndian.Uint32(b[4:]); needed != 0 {
		return unsupported(what, "it needs the features %#x", needed)
	}
	return nil
}

func appendIdent(b []byte, id PackID, generation uint32) []byte {
	b = appendFeatures(append(b, packMagic...))
	b = binary.LittleEndian.AppendUint32(b, generation)
	return append(b, id[:]...)
}

// readIdent returns the key generation of the pack.
func readIdent(what string, id PackID, b []byte) (uint32, error) {
	if string(b[:8]) != packMagic {
		return 0, damaged(what, "it is no pack")
	}
	if err := readFeatures(what, b[8:]); err != nil {
		return 0, err
	}
	if PackID(b[24:40]) != id {
		return 0, damaged(what, "it is pack %s", PackID(b[24:40]))
	}
	return binary.LittleEndian.Uint32(b[20:]), nil
}

// associated is what an encrypted frame is bound to besides its key.
func associated(id PackID, t FrameType, index, raw uint32) [25]byte {
	var b [25]byte
	b[0] = byte(t)
	binary.LittleEndian.PutUint32(b[1:], index)
	binary.LittleEndian.PutUint32(b[5:], raw)
	copy(b[9:], id[:])
	return b
}

func nonce(index uint32) [12]byte {
	var b [12]byte
	binary.LittleEndian.PutUint32(b[:], index)
	return b
}
