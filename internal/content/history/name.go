package history

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Name is the name of a backup: the claim it was made under and its number under this claim.
type Name struct {
	Claim  int64 // from 1 on; grows with every take-over of the workspace by a node
	Number int64 // from 1 on; 0 is the record of the claim itself
}

// String returns the name as people read it: "7.2".
func (n Name) String() string {
	return strconv.FormatInt(n.Claim, 10) + "." + strconv.FormatInt(n.Number, 10)
}

// IsClaim reports whether the name is that of a claim's record, which has no content.
func (n Name) IsClaim() bool { return n.Number == 0 }

// IsZero reports whether the name is no name.
func (n Name) IsZero() bool { return n == Name{} }

// Compare is negative if n is older than other, positive if newer.
func (n Name) Compare(other Name) int {
	return cmp.Or(cmp.Compare(n.Claim, other.Claim), cmp.Compare(n.Number, other.Number))
}

// ParseName reads what [Name.String] wrote, and nothing else.
func ParseName(s string) (Name, error) {
	claim, number, _ := strings.Cut(s, ".")
	c, claimErr := strconv.ParseInt(claim, 10, 64)
	n, numberErr := strconv.ParseInt(number, 10, 64)
	name := Name{Claim: c, Number: n}
	if claimErr != nil || numberErr != nil || name.String() != s || name.valid() != nil {
		return Name{}, fmt.Errorf("parse backup name %q: it has the form <claim>.<number>, like 7.2", s)
	}
	return name, nil
}

// MarshalText writes the name for JSON; no name is the empty text.
func (n Name) MarshalText() ([]byte, error) {
	if n.IsZero() {
		return nil, nil
	}
	return []byte(n.String()), n.valid()
}

// UnmarshalText reads what MarshalText wrote.
func (n *Name) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*n = Name{}
		return nil
	}
	name, err := ParseName(string(text))
	*n = name
	return err
}

func (n Name) valid() error {
	if n.Claim < 1 || n.Number < 0 {
		return fmt.Errorf("backup name %s: the claim is at least 1 and the number not negative", n)
	}
	return nil
}

// key is the last part of the name's key.
func (n Name) key() string {
	return invert(n.Claim) + "." + invert(n.Number)
}

func parseNameKey(key string) (Name, bool) {
	claim, number, _ := strings.Cut(key, ".")
	c, claimOK := revert(claim)
	n, numberOK := revert(number)
	name := Name{Claim: c, Number: n}
	return name, claimOK && numberOK && name.valid() == nil
}

// graveSuffix makes the key of a claim's tombstone sort before those of its entries: '-' comes before '.'.
const graveSuffix = "-deleted"

// graveKey is the last part of the key of a claim's tombstone.
func graveKey(claim int64) string { return invert(claim) + graveSuffix }

func parseGraveKey(key string) (claim int64, ok bool) {
	inverted, ok := strings.CutSuffix(key, graveSuffix)
	if ok {
		claim, ok = revert(inverted)
	}
	return claim, ok && claim > 0
}

// invert writes a number so that larger ones sort first.
func invert(x int64) string {
	return fmt.Sprintf("%016x", math.MaxInt64-x)
}

func revert(s string) (int64, bool) {
	x, err := strconv.ParseInt(s, 16, 64)
	if err != nil || x < 0 {
		return 0, false
	}
	x = math.MaxInt64 - x
	return x, invert(x) == s
}
