package main

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestEveryScriptIsComplete(t *testing.T) {
	p := places{tree: "/w/tree", store: "/w/store", out: "/w/out", file: "a/b", url: "http://127.0.0.1:1/r.git", self: "/bin/bench"}
	for _, t1 := range []tool{ours("/bin/ws-daemon"), plainTar(), zstdTar(), copying(), restic(), borg(), git()} {
		t.Run(t1.name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(t1.do).To(Or(HaveKey(restore), HaveKey(cloned)))
			for _, scripts := range []map[work]string{t1.do, t1.before, {"": t1.init}} {
				for w, script := range scripts {
					g.Expect(p.expand(script)).NotTo(MatchRegexp(`\{\w+\}`), string(w))
				}
			}
			g.Expect(p.environment(t1)).NotTo(ContainElement(ContainSubstring("{")))
		})
	}
}

func TestScripts(t *testing.T) {
	g := NewWithT(t)
	p := places{tree: "/w/tree", store: "/w/store", out: "/w/out", file: "a/b"}
	g.Expect(p.expand(plainTar().do[single])).To(Equal("tar xf /w/store/tar -C /w/out ./a/b && sync -f /w/out"))
	g.Expect(p.expand(ours("/bin/d").do[full])).To(Equal(
		"/bin/d archive create --store file:///w/store/s --domain bench --workspace tree --key-file /w/store/key --json /w/tree"))
	g.Expect(p.environment(restic())).To(Equal([]string{"RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=/w/store/cache"}))
}

func TestContenders(t *testing.T) {
	for only, want := range map[string][]string{
		"ws-daemon,tar": {"ws-daemon", "tar"},
		"tar":           {"tar"},
		"rsync":         {},
	} {
		g := NewWithT(t)
		tools, err := contenders(options{daemon: "not/built/yet", only: only})
		g.Expect(err).NotTo(HaveOccurred())
		names := []string{}
		for _, t := range tools {
			names = append(names, t.name)
		}
		g.Expect(names).To(Equal(want))
	}
}
