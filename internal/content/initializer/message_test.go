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
		"a\nb\nc\nd": "b; c; d",
		"\xff\xfe":   "",
	} {
		NewWithT(t).Expect(s.sanitise(in)).To(Equal(want), in)
	}
	NewWithT(t).Expect(len(s.sanitise(strings.Repeat("x", 5000)))).To(Equal(600))
}

func TestKindIgnoresWhatTheServerSays(t *testing.T) {
	for stderr, want := range map[string]Kind{
		"remote: fatal: Authentication failed\nfatal: early EOF":                           Failed,
		"fatal: Authentication failed for 'http://x'":                                      Unauthorized,
		"fatal: repository 'http://x/' not found":                                          NotFound,
		"fatal: unable to access 'x': The requested URL returned error: 403":               Unauthorized,
		"fatal: unable to access 'x': The requested URL returned error: 404":               NotFound,
		"fatal: unable to access 'x': The requested URL returned error: 502":               Failed,
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
