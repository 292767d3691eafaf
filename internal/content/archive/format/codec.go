package format

import (
	"crypto/cipher"
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// slack lets the decompressor write whole vectors at the end of its output.
const slack = 64

// Encoder compresses. It is reused, by one goroutine at a time.
type Encoder struct {
	zstd  *zstd.Encoder
	parts *zstd.Encoder // of pages
	page  pageEncoder
}

// window is how far back matches are looked for: a whole block of files. With half of it, which saves 2 MiB for each encoder, the
// encoder moves its history along for every 128 KiB of the second half, and a full backup takes a tenth more CPU time.
const window = 4 << 20

// pageWindow bounds the memory for compressing pages. Few are larger than a tenth of it.
const pageWindow = 256 << 10

// NewEncoder returns an encoder of the fastest level.
func NewEncoder() (*Encoder, error) {
	// What is stored has a SHA-256, so the checksum of zstd would only cost time.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make encoder: %w", err)
	}
	parts, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(pageWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make encoder: %w", err)
	}
	return &Encoder{zstd: z, parts: parts}, nil
}

// Compress appends raw as one zstd frame to dst.
func (e *Encoder) Compress(dst, raw []byte) []byte { return e.zstd.EncodeAll(raw, dst) }

// Decoder decompresses and verifies. It is reused, by one goroutine at a time.
type Decoder struct {
	zstd *zstd.Decoder
	pack PackID // whose cipher is kept, because frames come pack by pack
	key  *Key
	aead cipher.AEAD
	ad   [25]byte // here, and not on the stack, because the cipher is an interface and would move it to the heap
	iv   [12]byte
	tmp  []byte // a decrypted frame
	raw  []byte // a decoded page or table
}

// NewDecoder returns a decoder.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxRaw+slack),
		zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, fmt.Errorf("make decoder: %w", err)
	}
	return &Decoder{zstd: z}, nil
}

// Close releases what the decoder holds.
func (d *Decoder) Close() { d.zstd.Close() }

// OpenFrame verifies the stored bytes of a frame, decrypts and decompresses them. The result is in dst if dst has a
// capacity of f.Raw (a little more is faster: make it 64 more), and nothing is allocated then. stored is not changed.
func (d *Decoder) OpenFrame(dst []byte, key *Key, f Frame, t FrameType, stored []byte) ([]byte, error) {
	if err := f.check(stored, true); err != nil {
		return nil, err
	}
	if f.Gen != 0 {
		var err error
		d.tmp = room(d.tmp, len(stored))
		if stored, err = d.decrypt(d.tmp, key, f, t, stored); err != nil {
			return nil, err
		}
	}
	return d.content(dst, f, stored)
}

// ConsumeFrame is [Decoder.OpenFrame] for bytes that nobody needs any more: a sealed frame is decrypted where it lies. Its tag
// covers every byte, and whose frame it is, so that the hash is spared.
func (d *Decoder) ConsumeFrame(dst []byte, key *Key, f Frame, t FrameType, stored []byte) ([]byte, error) {
	if err := f.check(stored, f.Gen == 0); err != nil {
		return nil, err
	}
	if f.Gen != 0 {
		var err error
		if stored, err = d.decrypt(stored, key, f, t, stored); err != nil {
			return nil, err
		}
	}
	return d.content(dst, f, stored)
}

// check compares stored bytes with what is known of them.
func (f Frame) check(stored []byte, hash bool) error {
	if !f.plausible() || len(stored) != int(f.Stored) {
		return f.damaged("%d bytes are not its length", len(stored))
	}
	if hash && Hash(sha256.Sum256(stored)) != f.Hash {
		return f.damaged("the checksum differs")
	}
	return nil
}

// content decompresses a frame that was verified.
func (d *Decoder) content(dst []byte, f Frame, zstd []byte) ([]byte, error) {
	dst, err := d.decompress(dst, int(f.Raw), zstd)
	if err != nil {
		return nil, f.damaged("%v", err)
	}
	return dst, nil
}

func (f Frame) damaged(message string, args ...any) error {
	return damaged(fmt.Sprintf("frame %d of pack %s", f.Index, f.Pack), message, args...)
}

// decrypt returns the zstd frame, in the memory of into.
func (d *Decoder) decrypt(into []byte, ring *Key, f Frame, t FrameType, stored []byte) ([]byte, error) {
	key := ring.find(f.Gen)
	if key == nil {
		_, err := ring.of(fmt.Sprintf("frame %d of pack %s", f.Index, f.Pack), f.Gen)
		return nil, err
	}
	if d.aead == nil || d.pack != f.Pack || d.key != key {
		salt := f.Pack // a copy that may escape to the heap, unlike f
		aead, err := key.derive("pack", salt[:])
		if err != nil {
			return nil, err
		}
		d.aead, d.pack, d.key = aead, f.Pack, key
	}
	d.iv, d.ad = nonce(f.Index), associated(f.Pack, t, f.Index, f.Raw)
	plain, err := d.aead.Open(into[:0], d.iv[:], stored, d.ad[:])
	if err != nil {
		return nil, key.refused(fmt.Sprintf("frame %d of pack %s", f.Index, f.Pack))
	}
	return plain, nil
}

// decompress decodes a zstd frame of exactly that content size.
func (d *Decoder) decompress(dst []byte, size int, frame []byte) ([]byte, error) {
	dst = room(dst, size)
	if cap(dst) < size {
		dst = make([]byte, 0, size+slack)
	}
	limit := min(cap(dst), size+slack)
	out, err := d.zstd.DecodeAll(frame, dst[:0:limit])
	if err != nil {
		return nil, err
	}
	if len(out) != size {
		return nil, fmt.Errorf("%d bytes come out instead of %d", len(out), size)
	}
	return out, nil
}

// room returns a buffer of at least that capacity, b if it has it.
func room(b []byte, capacity int) []byte {
	if cap(b) >= capacity {
		return b
	}
	return make([]byte, 0, capacity+slack)
}

// Page opens and decodes a page, and checks that it is what the table says. Nothing of it lies in memory of the decoder.
func (d *Decoder) Page(key *Key, ref PageRef, stored []byte) (*Page, error) {
	if ref.Frame.Raw > MaxPageRaw {
		return nil, ref.Frame.damaged("%d bytes are too many for a page", ref.Frame.Raw)
	}
	raw, err := d.OpenFrame(d.raw, key, ref.Frame, FramePage, stored)
	if err != nil {
		return nil, err
	}
	d.raw = raw
	p, err := DecodePage(raw)
	if err != nil {
		return nil, fmt.Errorf("frame %d of pack %s: %w", ref.Frame.Index, ref.Frame.Pack, err)
	}
	if p.Ref(ref.Frame) != ref {
		return nil, ref.Frame.damaged("it is not the page that the table names")
	}
	return p, nil
}
