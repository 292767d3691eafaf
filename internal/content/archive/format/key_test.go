package format

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestParseKey(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for name, c := range map[string]struct {
		text       string
		generation uint32
		message    string
	}{
		"digits":               {hex, 1, ""},
		"digits and a newline": {" " + hex + "\n", 1, ""},
		"upper case":           {strings.ToUpper(hex), 1, ""},
		"generation":           {"12:" + hex, 12, ""},
		"last generation":      {"4294967295:" + hex, 4294967295, ""},
		"generation 0":         {"0:" + hex, 0, "generation"},
		"large generation":     {"4294967296:" + hex, 0, "generation"},
		"no generation":        {":" + hex, 0, "generation"},
		"nothing":              {"", 0, "64 hex digits"},
		"short":                {hex[1:], 0, "64 hex digits"},
		"long":                 {hex + "00", 0, "64 hex digits"},
		"no hex":               {"x" + hex[1:], 0, "64 hex digits"},
		"zeros":                {strings.Repeat("0", 64), 0, "all zeros"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			k, err := ParseKey([]byte(c.text))
			if c.message != "" {
				g.Expect(err).To(MatchError(ContainSubstring(c.message)))
				g.Expect(err.Error()).NotTo(ContainSubstring("abcdef"))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(k.Generation()).To(Equal(c.generation))
			g.Expect(k.secret[:2]).To(Equal([]byte{0x01, 0x23}))
		})
	}
}

func TestS8_KeyNeverShowsWhenPrinted(t *testing.T) {
	g := NewWithT(t)
	k := testKey(t)
	held := struct{ K *Key }{k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%T %v"} {
		for _, v := range []any{k, *k, held.K, &k} {
			text := fmt.Sprintf(strings.TrimPrefix(verb, "%T "), v)
			g.Expect(text).NotTo(Or(ContainSubstring("0a0b"), ContainSubstring("10 11 12"), ContainSubstring("0xa, 0xb")), verb)
		}
	}
	g.Expect(fmt.Sprintf("%#v", *k)).To(Equal("key of generation 7"))
}
