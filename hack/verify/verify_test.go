package main

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestCheckFile(t *testing.T) {
	const path = " /" + "home/someone"
	tests := map[string]struct {
		file, text string
		want       string // part of the error; empty: none
	}{
		"clean":                {"a.go", "package a\n", ""},
		"unfinished":           {"a.md", "one\n" + "TO" + "DO: two\n", `a.md:2: "TO` + `DO"`},
		"skipped test":         {"a_test.go", "t.Sk" + `ip("later")`, "make it run everywhere"},
		"sleeping test":        {"a_test.go", "time.Sl" + "eep(1)", "wait for what you expect"},
		"sleep in fake time":   {"a_test.go", "import \"testing/synctest\"\ntime.Sl" + "eep(1)", ""},
		"sleep outside a test": {"a.go", "time.Sl" + "eep(1)", ""},
		"path of one machine":  {"Makefile", "cd" + path, "on one machine only"},
		"merge":                {"a.txt", "<<<<" + "<<< ours", "a merge was not finished"},
		"conditions in tables": {"a.md", "| a | b |\n|---|---|\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := checkFile(tt.file, []byte(tt.text))
			if tt.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(tt.want)))
		})
	}
}

func TestCheckLink(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.md")
	text := "# Title\n\n## Life of a *thing*: 1st part\n\n```sh\n# not a heading\n```\n"
	NewWithT(t).Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
	tests := map[string]struct {
		target, want string
	}{
		"other site":        {"https://example.com/x", ""},
		"itself":            {"a.md", ""},
		"directory":         {".", ""},
		"heading":           {"#life-of-a-thing-1st-part", ""},
		"heading elsewhere": {"a.md#title", ""},
		"no file":           {"b.md", "link to nothing: b.md"},
		"no heading":        {"#not-a-heading", "link to a heading that is not there: #not-a-heading"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := checkLink(file, tt.target)
			if tt.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(tt.want)))
		})
	}
}

func TestFunctionsOf(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "a.go")
	g.Expect(os.WriteFile(file, []byte("package a\n\nfunc b() {\n}\n\nfunc c() { b() }\n"), 0o600)).To(Succeed())

	functions, lines, err := functionsOf(file)

	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(lines).To(Equal(6))
	g.Expect(functions).To(Equal([]function{{"b", file + ":3", 2}, {"c", file + ":6", 1}}))
}
