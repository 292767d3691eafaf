package format

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

var update = flag.Bool("update", false, "write the golden vectors anew; do it only for a new version of the format")

// goldens are the vectors that docs/format.md names, made from the samples of these tests and [testKey].
func goldens(t *testing.T) map[string][]byte {
	t.Helper()
	g := NewWithT(t)
	e, _ := codecs(t)
	plain, _ := buildPack(t, testID(1), nil, contents()...)
	sealed, _ := buildPack(t, testID(2), testKey(t), contents()...)
	page, _ := encodePage(g, e, samplePage())
	table, err := e.Table(nil, sampleTable())
	g.Expect(err).NotTo(HaveOccurred())
	sealedTable, err := e.Table(testKey(t), sampleTable())
	g.Expect(err).NotTo(HaveOccurred())
	return map[string][]byte{"plain.pack": plain, "sealed.pack": sealed, "page.zst": page, "plain.table": table,
		"sealed.table": sealedTable}
}

func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestGoldenVectorsAreMadeAgain(t *testing.T) {
	for name, data := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			if *update {
				g.Expect(os.WriteFile(filepath.Join("testdata", name), data, 0o644)).To(Succeed())
			}
			g.Expect(golden(t, name)).To(Equal(data), "a new compressor may change them; they must be readable all the same")
		})
	}
}

// vector is how a golden vector is read: to something that can be compared.
type vector struct {
	name string
	read func(d *Decoder, key *Key, data []byte) (any, error)
	key  func(tb testing.TB) *Key
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	pack := func(id PackID) func(d *Decoder, key *Key, data []byte) (any, error) {
		return func(d *Decoder, key *Key, data []byte) (any, error) {
			_, list, err := readPack(d, id, key, data)
			return list, err
		}
	}
	table := func(d *Decoder, key *Key, data []byte) (any, error) { return d.Table(key, data) }
	e, _ := codecs(tb)
	stored := golden(tb, "page.zst")
	ref := refOf(samplePage(), stored, len(e.page.write(samplePage())))
	page := func(d *Decoder, key *Key, data []byte) (any, error) { return d.Page(key, ref, data) }
	plain, sealed := packKeys["plain"], packKeys["sealed"]
	return []vector{
		{"plain.pack", pack(testID(1)), plain}, {"sealed.pack", pack(testID(2)), sealed}, {"page.zst", page, plain},
		{"plain.table", table, plain}, {"sealed.table", table, sealed},
	}
}

func TestGoldenVectorsAreRead(t *testing.T) {
	page := samplePage()
	for i := range page.Dirs {
		if page.Dirs[i].Entries == nil {
			page.Dirs[i].Entries = []Entry{}
		}
	}
	want := map[string]any{"plain.pack": contents(), "sealed.pack": contents(), "page.zst": page,
		"plain.table": sampleTable(), "sealed.table": sampleTable()}
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			g.Expect(v.read(d, v.key(t), golden(t, v.name))).To(Equal(want[v.name]))
		})
	}
}

func TestEveryFlippedByteIsNoticedOrHarmless(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			key, good := v.key(t), golden(t, v.name)
			want, err := v.read(d, key, good)
			g.Expect(err).NotTo(HaveOccurred())
			for i := range good {
				for _, flip := range []byte{0x01, 0x80, 0xff} {
					bad := bytes.Clone(good)
					bad[i] ^= flip
					got, err := v.read(d, key, bad)
					if err != nil {
						g.Expect(err).To(Or(MatchError(ErrDamaged), MatchError(ErrUnsupported), MatchError(ErrKey)), "byte %d", i)
						continue
					}
					g.Expect(got).To(Equal(want), "byte %d", i)
				}
			}
		})
	}
}

func TestEveryTruncationIsNoticed(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			g := NewWithT(t)
			_, d := codecs(t)
			good := golden(t, v.name)
			for i := range good {
				for _, bad := range [][]byte{good[:i], good[i+1:]} {
					_, err := v.read(d, v.key(t), bytes.Clone(bad))
					g.Expect(err).To(Or(MatchError(ErrDamaged), MatchError(ErrUnsupported)), "%d bytes", i)
				}
			}
			_, err := v.read(d, v.key(t), append(bytes.Clone(good), 0))
			g.Expect(err).To(MatchError(ErrDamaged), "one more byte")
		})
	}
}

// Raw pages are hashed where they lie, so nothing but this test gives the decoder damaged ones.
func TestFlippedRawPageNeverPanics(t *testing.T) {
	g := NewWithT(t)
	e, _ := codecs(t)
	good := e.page.write(samplePage())
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if p, err := DecodePage(bad); err == nil {
				g.Expect(p.check()).To(Succeed())
				continue
			}
		}
		_, err := DecodePage(good[:i])
		g.Expect(err).To(MatchError(ErrDamaged))
	}
}
