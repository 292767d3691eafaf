package history

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// Checksum is the CRC-32C of an object: object stores compute it themselves, so what they hold can be compared without reading it.
// In JSON it is 8 hex digits.
type Checksum uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalText writes 8 hex digits.
func (c Checksum) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(c)), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Checksum) UnmarshalText(text []byte) error {
	var sum [4]byte
	if len(text) != hex.EncodedLen(len(sum)) {
		return fmt.Errorf("%q is not 8 hex digits", text)
	}
	if _, err := hex.Decode(sum[:], text); err != nil {
		return fmt.Errorf("%q is not 8 hex digits", text)
	}
	*c = Checksum(uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3]))
	return nil
}
