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

func TestParseKeyRing(t *testing.T) {
	a, b, c := strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32)
	for name, x := range map[string]struct{ text, want, message string }{
		"one of the file":  {"# keys\n\n 3:" + a + "\r\n2:" + b + "\n" + c, "key of generation 3, 2, 1", ""},
		"first one seals":  {"2:" + a + "\n7:" + b + "\n", "key of generation 2, 7", ""},
		"twice":            {"2:" + a + "\n2:" + b, "", "two of generation 2"},
		"twice without":    {a + "\n" + b, "", "two of generation 1"},
		"twice, both old":  {"3:" + a + "\n2:" + b + "\n2:" + c, "", "two of generation 2"},
		"only comments":    {"# none\n", "", "64 hex digits"},
		"one line is none": {"2:" + a + "\nnone", "", "64 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			k, err := ParseKey([]byte(x.text))
			if x.message != "" {
				g.Expect(err).To(MatchError(ContainSubstring(x.message)))
				g.Expect(err.Error()).NotTo(Or(ContainSubstring("a1a1"), ContainSubstring("b2b2"), ContainSubstring("c3c3")))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(k.String()).To(Equal(x.want))
		})
	}
}

// ringOf parses a ring; each word is a generation and the byte that its key repeats, like "2:7f".
func ringOf(t *testing.T, words ...string) *Key {
	t.Helper()
	var lines []string
	for _, w := range words {
		generation, digits, _ := strings.Cut(w, ":")
		lines = append(lines, generation+":"+strings.Repeat(digits, keySize))
	}
	k, err := ParseKey([]byte(strings.Join(lines, "\n")))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return k
}

// Whatever was sealed with any generation of a ring opens with the ring, and what does not open says which generation is missing.
func TestRotation(t *testing.T) {
	for name, c := range map[string]struct {
		sealed, opens []string
		message       string
	}{
		"newer ring":           {[]string{"1:7f"}, []string{"2:8a", "1:7f"}, ""},
		"new key not in use":   {[]string{"1:7f"}, []string{"1:7f", "2:8a"}, ""},
		"node without the key": {[]string{"2:8a", "1:7f"}, []string{"1:7f"}, "key generation 2, and there is only the key of generation 1"},
		"lost key":             {[]string{"1:7f"}, []string{"3:8a", "2:8b"}, "key generation 1, and there is only the key of generation 3, 2"},
		"mixed keys":           {[]string{"2:8a"}, []string{"3:11", "2:8b"}, "does not open with the key of generation 2"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			opens, seals := ringOf(t, c.opens...), ringOf(t, c.sealed...)
			for what, err := range readAll(t, seals, opens) {
				if c.message == "" {
					g.Expect(err).NotTo(HaveOccurred(), what)
					continue
				}
				g.Expect(err).To(And(MatchError(ErrKey), MatchError(And(ContainSubstring(c.message), ContainSubstring(what)))))
			}
		})
	}
}

// readAll seals a pack and a page table, and reads everything of them with another ring.
func readAll(t *testing.T, seals, opens *Key) map[string]error {
	t.Helper()
	g := NewWithT(t)
	e, d := codecs(t)
	pack, frames := buildPack(t, testID(1), seals, contents()...)
	f := frames[1]
	_, frameErr := d.OpenFrame(nil, opens, f, FrameData, pack[f.Offset:f.Offset+f.Stored])
	footer, err := ReadFooter(testID(1), int64(len(pack)), pack[len(pack)-FooterSize:])
	g.Expect(err).NotTo(HaveOccurred())
	_, trailerErr := ReadTrailer(opens, footer, pack[footer.Offset:footer.Offset+footer.Length])
	table, err := e.Table(seals, sampleTable())
	g.Expect(err).NotTo(HaveOccurred())
	_, tableErr := d.Table(opens, table)
	id := testID(1).String()
	return map[string]error{"frame 1 of pack " + id: frameErr, "trailer of pack " + id: trailerErr, "page table": tableErr}
}

// Domains have keys of their own, although all may come from one file.
func TestKeysOfDomainsAreApart(t *testing.T) {
	g := NewWithT(t)
	ring := ringOf(t, "2:8a", "1:7f")
	one, err := ring.For("one")
	g.Expect(err).NotTo(HaveOccurred())
	two, err := ring.For("two")
	g.Expect(err).NotTo(HaveOccurred())
	again, err := ringOf(t, "2:8a", "1:7f").For("one")
	g.Expect(err).NotTo(HaveOccurred())
	for what, err := range readAll(t, one, two) {
		g.Expect(err).To(And(MatchError(ErrKey), MatchError(ContainSubstring("another domain's"))), what)
	}
	for what, err := range readAll(t, ring, one) {
		g.Expect(err).To(MatchError(ErrKey), what)
	}
	for what, err := range readAll(t, one, again) {
		g.Expect(err).NotTo(HaveOccurred(), what)
	}
	g.Expect(checkOf(t, one)).To(Equal(checkOf(t, again)))
	g.Expect(checkOf(t, one)).NotTo(Equal(checkOf(t, two)))
	g.Expect(checkOf(t, one)).NotTo(Equal(checkOf(t, ringOf(t, "2:8b"))))
	old, err := ringOf(t, "1:7f").For("one")
	g.Expect(err).NotTo(HaveOccurred())
	for what, err := range readAll(t, old, one) {
		g.Expect(err).NotTo(HaveOccurred(), "older generations are the domain's, too: %s", what)
	}
}

func checkOf(t *testing.T, k *Key) string {
	t.Helper()
	check, err := k.Check()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(check).To(HaveLen(64))
	return check
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
