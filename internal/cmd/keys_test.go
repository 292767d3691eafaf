package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// keyLine is a line of a key file.
func keyLine(generation int, digits string) string {
	return fmt.Sprintf("%d:%s\n", generation, strings.Repeat(digits, 32))
}

// keep makes a file and returns its path.
func keep(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	NewWithT(t).Expect(os.WriteFile(path, []byte(text), 0o600)).To(Succeed())
	return path
}

func TestKeyRing(t *testing.T) {
	g, dir := NewWithT(t), t.TempDir()
	g.Expect(keyRing("").of("team")).To(BeNil())
	g.Expect(keyRing("").check()).To(Succeed())
	g.Expect(keyRing(dir).check()).To(MatchError(ContainSubstring("there are no key files in " + dir)))
	g.Expect(keyRing(dir).of("team")).Error().To(MatchError(ContainSubstring("there is neither team.key nor _default.key in " + dir)))
	g.Expect(keyRing(dir + "/x").of("team")).Error().To(MatchError(ContainSubstring("read the key of domain team: stat " + dir + "/x")))

	keep(t, dir, "team.key", keyLine(2, "8a")+keyLine(1, "7f"))
	keep(t, dir, "open.key", "none\n")
	g.Expect(keyRing(dir).check()).To(Succeed())
	team, err := keyRing(dir).of("team")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(team.String()).To(Equal("key of generation 2, 1"))
	g.Expect(keyRing(dir).of("open")).To(BeNil(), "on purpose")
	g.Expect(keyRing(dir).of("other")).Error().To(HaveOccurred(), "a missing file leaves nothing in the open")

	keep(t, dir, "_default.key", keyLine(5, "8a"))
	other, err := keyRing(dir).of("other")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(other.String()).To(Equal("key of generation 5"))
	keep(t, dir, "team.key", keyLine(3, "9b"))
	team, err = keyRing(dir).of("team")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(team.String()).To(Equal("key of generation 3"), "a changed file counts at once")

	broken := keep(t, dir, "team.key", "3:9b")
	g.Expect(keyRing(dir).check()).To(MatchError(And(ContainSubstring(broken), ContainSubstring("64 hex digits"))))
	g.Expect(keyRing(dir).of("team")).Error().To(MatchError(ContainSubstring(broken)))
	large := keep(t, dir, "large", strings.Repeat("#", maxKeyFile+1))
	g.Expect(keyRing(large).check()).To(MatchError(ContainSubstring("larger than any key file")))
}

// Keys are changed while backups go on; a key that is wrong or missing is named, with the backup that needs it.
func TestArchiveRotatesKeys(t *testing.T) {
	g, dir, src := NewWithT(t), t.TempDir(), t.TempDir()
	at := newStoreURL(t)
	first, second := keyLine(1, "7f"), keyLine(2, "8a")
	file := "--key-file=" + keep(t, dir, "key", first)
	keep(t, src, "one", "first")
	must(t, "archive", "create", at, inDomain, ofWeb, file, src)
	keep(t, dir, "key", second+first)
	keep(t, src, "two", "second")
	must(t, "archive", "create", at, inDomain, ofWeb, file, src)
	g.Expect(must(t, "archive", "cat", at, inDomain, ofWeb, file, "one")).To(Equal("first"))
	g.Expect(must(t, "archive", "cat", at, inDomain, ofWeb, file, "two")).To(Equal("second"))
	must(t, "archive", "verify", at, inDomain, ofWeb, file, "--read-data")

	write := func(text string) { keep(t, dir, "key", text) }
	write(second)
	must(t, "archive", "verify", at, inDomain, ofWeb, file, "--read-data")
	g.Expect(refused(t, "archive", "verify", at, inDomain, ofWeb, file, "--backup=1.1")).To(And(
		ContainSubstring("backup 1.1 of workspace web in domain team"), ContainSubstring("key generation 1, and there is only the key of generation 2")))
	for text, message := range map[string]string{
		first:                  "key generation 2, and there is only the key of generation 1",
		keyLine(2, "11"):       "does not open with the key of generation 2",
		second[:len(second)-2]: "64 hex digits",
	} {
		write(text)
		out := refused(t, "archive", "verify", at, inDomain, ofWeb, file, "--read-data")
		g.Expect(out).To(ContainSubstring(message))
		if !strings.Contains(message, "hex") {
			g.Expect(out).To(ContainSubstring("backup 1.2 of workspace web in domain team"))
		}
	}
	write(keyLine(2, "11") + first)
	g.Expect(refused(t, "archive", "create", at, inDomain, "--workspace=new", file, src)).To(
		And(ContainSubstring("key generation 2 is not the one that was used first"), ContainSubstring("d/team/k/2")))
}
