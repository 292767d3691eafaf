package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

var (
	// shells are blocks of a document in which somebody types, typed the command lines of ws-daemon in them: also after a prompt, or in a pod.
	shells = regexp.MustCompile("(?s)\n```(?:sh|console)\n(.*?)\n```\n")
	typed  = regexp.MustCompile(`(?m)^(?:\$ |kubectl .* -- (?:\\\n  )?)?ws-daemon ([^\n]*)$`)
)

// Whatever a document has somebody type is a command that there is, with flags and arguments that it has.
func TestCommandsOfTheDocumentsExist(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	seen := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		for _, block := range shells.FindAllStringSubmatch(string(text), -1) {
			for _, found := range typed.FindAllStringSubmatch(block[1], -1) {
				if strings.HasSuffix(found[1], "]") {
					continue // how a command is used, in its own words
				}
				seen++
				NewWithT(t).Expect(understood(words(found[1]))).To(Succeed(), "%s: ws-daemon %s", file, found[1])
			}
		}
	}
	NewWithT(t).Expect(seen).To(BeNumerically(">", 25))
}

// words are those of a command line, up to what a shell takes for itself.
func words(line string) []string {
	line = regexp.MustCompile(`\s+(#|\||&&|>|;).*$`).ReplaceAllString(line, "")
	return strings.Fields(strings.ReplaceAll(line, `"`, ""))
}

func understood(args []string) error {
	root := newRoot()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InheritedFlags() // puts those of the commands above beside its own
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
