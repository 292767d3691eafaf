package initializer

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestVersionsOfGit(t *testing.T) {
	for words, want := range map[string]struct {
		version string
		old     bool
	}{
		"git version 2.39.5":                   {"2.39.5", true},
		"git version 1.9.1":                    {"1.9.1", true},
		"git version 2.43.6":                   {"2.43.6", true},
		"git version 2.43.7":                   {"2.43.7", false},
		"git version 2.44.4.windows.1":         {"2.44.4.windows.1", false},
		"git version 2.49.0 (Apple Git-155)":   {"2.49.0", true},
		"git version 2.50.0":                   {"2.50.0", true},
		"git version 2.50.1":                   {"2.50.1", false},
		"git version 2.51.0":                   {"2.51.0", false},
		"git version 2.52.0.123.gdeadbeef":     {"2.52.0.123.gdeadbeef", false},
		"git version 3.0":                      {"3.0", false},
		"git version 2.9999999.1":              {"", false},
		"fatal: git version 2.50.1 is no more": {"", false},
		"":                                     {"", false},
	} {
		g := NewWithT(t)
		version, err := judgeVersion(words)
		g.Expect(version).To(Equal(want.version), words)
		switch {
		case want.old:
			g.Expect(err).To(Equal(&OldVersionError{want.version}), words)
		case want.version == "":
			g.Expect(err).To(MatchError("git does not tell its version"), words)
		default:
			g.Expect(err).NotTo(HaveOccurred(), words)
		}
	}
}
