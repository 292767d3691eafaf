package initializer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// BenchmarkGitClone compares a clone of 20,000 files, sandbox included, with the plain `git clone` of the same server: one after the
// other, in the same run. The metric "ratio" is ours divided by git's.
func BenchmarkGitClone(b *testing.B) {
	g := NewWithT(b)
	s := newServer(b)
	work := b.TempDir()
	git(b, work, "init", "--quiet", "--initial-branch=main")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		text := make([]byte, 0, 2048)
		for range random.IntN(200) {
			text = fmt.Appendf(text, "%08x\n", random.Uint32())
		}
		write(b, work, fmt.Sprintf("%03d/%03d", i/100, i%100), string(text))
	}
	commit(b, work, "m")
	git(b, s.root, "clone", "--quiet", "--bare", work, "r.git")
	git(b, filepath.Join(s.root, "r.git"), "repack", "-adq")
	ours, plain := time.Duration(0), time.Duration(0)
	for b.Loop() {
		target := newTarget(b)
		began := time.Now()
		_, err := newGit(b).Run(b.Context(), target, initializer.GitSpec{URL: s.URL + "/r.git"})
		ours += time.Since(began)
		g.Expect(err).NotTo(HaveOccurred())
		dir := filepath.Join(b.TempDir(), "clone")
		cmd := exec.CommandContext(b.Context(), "git", "clone", "--quiet", s.URL+"/r.git", dir)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
		began = time.Now()
		g.Expect(cmd.Run()).To(Succeed())
		plain += time.Since(began)
		g.Expect(os.RemoveAll(dir)).To(Succeed())
		g.Expect(os.RemoveAll(target.Dir)).To(Succeed())
	}
	b.ReportMetric(ours.Seconds()/plain.Seconds(), "ratio")
}
