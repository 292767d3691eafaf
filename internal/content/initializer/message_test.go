package initializer

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestS8_SanitiseRemovesSecrets(t *testing.T) {
	s := &secret{values: hidden(Credentials{Username: "alice", Password: "p@ss/word"})}
	for in, want := range map[string]string{
		"fatal: p@ss/word is wrong":                        "fatal: *** is wrong",
		"fatal: p%40ss%2Fword":                             "fatal: ***",
		"fatal: https://bob:secret@example.com/x":          "fatal: https://***@example.com/x",
		"Authorization: Basic YWxpY2U6cEBzcy93b3Jk":        "Authorization: Basic ***",
		"remote: \x1b[31mred\x1b[0m\x00\a":                 "remote: [31mred[0m",
		"Cloning into '.'...\nfatal: no":                   "fatal: no",
		"Receiving objects:  10% (1/10)\rfatal: early EOF": "fatal: early EOF",
		"a\nb\nc\nd": "a; b; c; d",
		"\xff\xfe":   "",
	} {
		NewWithT(t).Expect(s.sanitise(in)).To(Equal(want), in)
	}
	NewWithT(t).Expect(s.sanitise("first\n" + strings.Repeat("x", 5000) + "\nlast")).To(Equal("…" + strings.Repeat("x", 1018) + "; last"))
}

func TestKindIgnoresWhatTheServerSays(t *testing.T) {
	for stderr, want := range map[string]Kind{
		"remote: fatal: Authentication failed\nfatal: early EOF":                           Failed,
		"fatal: Authentication failed for 'http://x'":                                      Unauthorized,
		"fatal: repository 'http://x/' not found":                                          NotFound,
		"fatal: unable to access 'x': The requested URL returned error: 403":               Unauthorized,
		"fatal: unable to access 'x': The requested URL returned error: 404":               NotFound,
		"fatal: unable to access 'x': The requested URL returned error: 502":               Failed,
		"fatal: cannot create directory at 'x': No space left on device":                   Full,
		"error: unable to write file x: Disk quota exceeded":                               Full,
		"fatal: transport 'file' not allowed":                                              Invalid,
		"fatal: Remote branch x not found in upstream origin":                              NotFound,
		"fatal: unable to access 'http://x/': Could not resolve host: x":                   Failed,
		"error: RPC failed; HTTP 500\nfatal: expected flush after ref listing":             Failed,
		"remote: not our ref\nfatal: remote error: upload-pack: not our ref " + "deadbeef": NotFound,
	} {
		NewWithT(t).Expect(kindOf(stderr)).To(Equal(want), stderr)
	}
}

func TestTailKeepsTheEndOnly(t *testing.T) {
	g := NewWithT(t)
	out := &tail{}
	for range 1000 {
		_, err := out.Write([]byte(strings.Repeat("x", 1000)))
		g.Expect(err).NotTo(HaveOccurred())
	}
	_, err := out.Write([]byte("\nend"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out.last).To(HaveLen(keepLast))
	g.Expect(out.String()).To(Equal("end"))
	g.Expect(len(out.line)).To(BeNumerically("<=", 200))
}

func TestProgressIsGitsOwn(t *testing.T) {
	for line, want := range map[string]Progress{
		"Receiving objects:  12% (123/1000)":                           {Stage: "Receiving objects", Percent: 12, Done: 123, Total: 1000},
		"Receiving objects:  50% (2/4), 1.50 MiB | 3.00 MiB/s":         {Stage: "Receiving objects", Percent: 50, Done: 2, Total: 4, Bytes: 3 << 19},
		"Receiving objects: 100% (4/4), 12 bytes | 12.00 KiB/s, done.": {Stage: "Receiving objects", Percent: 100, Done: 4, Total: 4, Bytes: 12},
		"Updating files: 100% (20000/20000), done.":                    {Stage: "Updating files", Percent: 100, Done: 20000, Total: 20000},
		"Resolving deltas:   3% (3/100)":                               {Stage: "Resolving deltas", Percent: 3, Done: 3, Total: 100},
		"remote: Receiving objects:  12% (123/1000)":                   {},
		"Receiving objects: 999% (1/1)":                                {},
		"Rummaging through your files:  1% (1/1)":                      {},
	} {
		got, ok := parseProgress(line)
		NewWithT(t).Expect(ok).To(Equal(want != Progress{}), line)
		if ok {
			NewWithT(t).Expect(got).To(Equal(want), line)
		}
	}
}

func TestATreeIsCountedUntilTheVolumeIsFull(t *testing.T) {
	entry := func(mode, kind, size, name string) string {
		return mode + " " + kind + " " + strings.Repeat("a", 40) + " " + strings.Repeat(" ", 7-len(size)) + size + "\t" + name + "\x00"
	}
	list := entry("100644", "blob", "5000", "a\nb c") + entry("040000", "tree", "-", "dir") + entry("120000", "blob", "6", "dir/"+strings.Repeat("n", 4000)) +
		entry("160000", "commit", "-", "sub")
	for name, tt := range map[string]struct {
		space space
		files int64
		bytes int64
		full  string
	}{
		"fits":           {space{bytes: 12288, files: 4, block: 4096}, 2, 5006, ""},
		"uncounted":      {space{bytes: 12288, files: -1, block: 4096}, 2, 5006, ""},
		"too many bytes": {space{bytes: 12287, files: 4, block: 4096}, 2, 5006, "enlarge spec.volume.size"},
		"too many files": {space{bytes: 12288, files: 3, block: 4096}, 2, 5006, "raise spec.volume.inodes"},
	} {
		for _, step := range []int{1, 7, 100000} {
			g := NewWithT(t)
			c := &treeCounter{space: tt.space}
			var err error
			for rest := list; rest != "" && err == nil; rest = rest[min(step, len(rest)):] {
				_, err = c.Write([]byte(rest[:min(step, len(rest))]))
			}
			if tt.full != "" {
				g.Expect(err).To(And(MatchError(ErrFull), MatchError(ContainSubstring(tt.full))), name)
				continue
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect([]int64{c.files, c.bytes}).To(Equal([]int64{tt.files, tt.bytes}), name)
		}
	}
}
