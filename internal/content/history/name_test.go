package history

import (
	"cmp"
	"encoding/json"
	"math"
	"testing"

	. "github.com/onsi/gomega"
)

func TestParseName(t *testing.T) {
	g := NewWithT(t)
	for s, want := range map[string]Name{"1.0": {1, 0}, "7.2": {7, 2}, "12.345": {12, 345}, "9223372036854775807.9223372036854775807": {math.MaxInt64, math.MaxInt64}} {
		g.Expect(ParseName(s)).To(Equal(want))
		g.Expect(want.String()).To(Equal(s))
	}
	for _, s := range []string{"", ".", "1", "1.", ".1", "0.1", "0.0", "-1.2", "1.-2", "+1.2", "01.2", "1.02", "1.2.3", " 1.2", "1.2 ", "a.b", "1,2", "9223372036854775808.1", "0x1.2"} {
		_, err := ParseName(s)
		g.Expect(err).To(MatchError(ContainSubstring("<claim>.<number>")), s)
	}
}

func TestNameJSON(t *testing.T) {
	g := NewWithT(t)
	type record struct {
		Name Name `json:"name"`
		Base Name `json:"base,omitzero"`
	}
	for text, want := range map[string]record{`{"name":"7.2"}`: {Name: Name{7, 2}}, `{"name":""}`: {}, `{"name":"7.0","base":"6.41"}`: {Name{7, 0}, Name{6, 41}}} {
		data, err := json.Marshal(want)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(data)).To(Equal(text))
		var got record
		g.Expect(json.Unmarshal(data, &got)).To(Succeed())
		g.Expect(got).To(Equal(want))
	}
	g.Expect(json.Unmarshal([]byte(`{"name":"7"}`), &record{})).NotTo(Succeed())
	_, err := json.Marshal(Name{Claim: -1})
	g.Expect(err).To(HaveOccurred())
}

// The order of keys is the inverted order of names, and every key means one name.
func FuzzNameOrder(f *testing.F) {
	for _, s := range [][4]int64{{1, 0, 1, 1}, {7, 2, 6, 41}, {1, 9, 1, 10}, {math.MaxInt64, 0, 1, math.MaxInt64}, {255, 1, 256, 0}, {3, 3, 3, 3}} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, claim, number, otherClaim, otherNumber int64) {
		g := NewWithT(t)
		a, b := Name{claim, number}, Name{otherClaim, otherNumber}
		if a.valid() != nil || b.valid() != nil {
			return
		}
		g.Expect(cmp.Compare(a.key(), b.key())).To(Equal(-a.Compare(b)), "%s and %s", a, b)
		back, ok := parseNameKey(a.key())
		g.Expect(ok).To(BeTrue())
		g.Expect(back).To(Equal(a))
		g.Expect(a.key()).To(HaveLen(33))
		g.Expect(ParseName(a.String())).To(Equal(a))
	})
}

func FuzzParseNameKey(f *testing.F) {
	for _, s := range []string{"", ".", "7ffffffffffffffe.7fffffffffffffff", "7FFFFFFFFFFFFFFE.7fffffffffffffff", "ffffffffffffffff.0", "-000000000000001.7fffffffffffffff", "+7fffffffffffffe.7fffffffffffffff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if n, ok := parseNameKey(key); ok {
			NewWithT(t).Expect(n.key()).To(Equal(key), "only what we write is read")
		}
	})
}
