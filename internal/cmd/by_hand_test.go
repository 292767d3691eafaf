package cmd

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
)

// documented returns the command lines in the chapter of the documentation on restoring by hand.
func documented(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/storage.md")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, chapter, _ := strings.Cut(string(text), "\n## Restore by hand when the cluster is gone\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	var lines []string
	for line := range strings.SplitSeq(chapter, "\n") {
		if strings.HasPrefix(line, "ws-daemon ") || strings.HasPrefix(line, "python3 ") {
			lines = append(lines, line)
		}
	}
	NewWithT(t).Expect(lines).To(HaveLen(6))
	return lines
}

// What the documentation says about restoring without a cluster is done to the letter, with real servers.
func TestRestoreByHandAsDocumented(t *testing.T) {
	for kind, start := range map[string]func(context.Context, string, io.Writer) (*stores.Server, error){
		"s3": stores.StartS3, "gcs": stores.StartGCS,
	} {
		t.Run(kind, func(t *testing.T) {
			g, dir := NewWithT(t), t.TempDir()
			server, err := start(t.Context(), t.TempDir(), os.Stderr)
			g.Expect(err).NotTo(HaveOccurred())
			t.Cleanup(func() { _ = server.Stop() })
			url := server.URL("production", "")
			if kind == "s3" {
				url += "&credentials=environment"
				t.Setenv("AWS_ACCESS_KEY_ID", stores.AccessKey)
				t.Setenv("AWS_SECRET_ACCESS_KEY", stores.SecretKey)
			}
			must(t, "archive", "init", "--store", url)
			must(t, "archive", "create", "--store", url, "--domain", "team-a", "--workspace", "web", someTree(t))
			copied := filepath.Join(dir, "copy")
			copyStore(t, url, copied)
			place := strings.NewReplacer(`"$store"`, url, "/tmp/", dir+"/", "/mnt/copy", copied, "hack/", "../../hack/")
			for _, line := range documented(t) {
				words := strings.Fields(place.Replace(line))
				if words[0] == "ws-daemon" {
					must(t, words[1:]...)
					continue
				}
				out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
				g.Expect(err).NotTo(HaveOccurred(), string(out))
			}
			for _, restored := range []string{"web", "part", "by-python"} {
				g.Expect(os.ReadFile(filepath.Join(dir, restored, "src", "main.go"))).To(BeEquivalentTo("package main\n"))
			}
			g.Expect(namesIn(t, filepath.Join(dir, "by-python"))).To(Equal([]string{"README", "src"}))
			out, err := exec.CommandContext(t.Context(), "tar", "-xOf", filepath.Join(dir, "web.tar"), "src/main.go").Output()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(out)).To(Equal("package main\n"))
		})
	}
}

// copyStore makes files of all objects, as any tool for the store does.
func copyStore(t *testing.T, url, to string) {
	t.Helper()
	g := NewWithT(t)
	s, err := drivers.Open(t.Context(), url)
	g.Expect(err).NotTo(HaveOccurred())
	objects, err := s.List(t.Context(), "", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(objects).To(ContainElement(HaveField("Key", store.IdentityKey)))
	for _, o := range objects {
		data, err := s.Get(t.Context(), o.Key, o.Size)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.MkdirAll(filepath.Join(to, filepath.Dir(o.Key)), 0o700)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(to, o.Key), data, 0o600)).To(Succeed())
	}
}

// What is damaged is named, with the backup that needs it and what can be done.
func TestS10_DamageIsExplained(t *testing.T) {
	dir, at := someTree(t), newStoreURL(t)
	must(t, "archive", "create", at, inDomain, ofWeb, dir)
	pack := packsOf(t, at)[0]
	whole, err := os.ReadFile(pack)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, harm := range map[string]func(g Gomega){
		"flipped":   func(Gomega) { flip(t, pack) },
		"truncated": func(g Gomega) { g.Expect(os.Truncate(pack, int64(len(whole)/2))).To(Succeed()) },
		"another":   func(g Gomega) { g.Expect(os.WriteFile(pack, make([]byte, len(whole)), 0o600)).To(Succeed()) },
		"missing":   func(g Gomega) { g.Expect(os.Remove(pack)).To(Succeed()) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			defer func() { g.Expect(os.WriteFile(pack, whole, 0o600)).To(Succeed()) }()
			harm(g)
			for _, command := range [][]string{
				{"restore", filepath.Join(t.TempDir(), "to")}, {"verify", "--read-data"}, {"export", filepath.Join(t.TempDir(), "tar")}, {"cat", "README"},
			} {
				message := refused(t, append([]string{"archive", command[0], at, inDomain, ofWeb}, command[1:]...)...)
				g.Expect(message).To(MatchRegexp(`^backup 1\.1 of workspace web in domain team cannot be read: .*` + filepath.Base(pack) + `.*: bring the ` +
					`object back from a copy of the store, or choose another one with --backup, or restore what is whole with --salvage$`))
			}
		})
	}
}
