//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/nodes"
)

func empty() v1.Initializer { return v1.Initializer{Empty: &v1.EmptyInitializer{}} }

// A pod finds what is in the repository.
func TestFirstPodFromGit(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.a, v1.Initializer{Git: &v1.GitInitializer{URL: outside(env.git.URL) + "/hello.git"}})
	w.pod("shell", ws, idle)
	w.Expect(w.exec("shell", sources)).To(Equal(w.here(filepath.Join(env.dir, "repository"), sources)))
	w.Expect(w.exec("shell", "cat .git/HEAD; echo mine >>README; cat README")).To(Equal("ref: refs/heads/main\nhello\nmine"))
}

// Who fills a workspace in a pod is stopped at its limit, and nothing that was there before suffers.
func TestQuotaInThePod(t *testing.T) {
	w := newWorld(t)
	full := Or(ContainSubstring("No space left"), ContainSubstring("uota exceeded"))
	for name, n := range map[string]*nodes.Node{"on-lvm": env.a, "on-xfs": env.b} {
		w.pod(name, w.workspace(name, n, empty()), idle)
		w.exec(name, write)
		before := w.exec(name, list)
		_, err := w.try(name, "dd if=/dev/zero of=large bs=1M count=400")
		w.Expect(err).To(MatchError(full))
		size, err := strconv.Atoi(w.exec(name, "stat -c %s large"))
		w.Expect(err).NotTo(HaveOccurred())
		w.say("%s: the writer was stopped after %d bytes", name, size)
		w.Expect(size).To(And(BeNumerically(">", 150<<20), BeNumerically("<", 304<<20)), "an XFS of 304 MiB has a log of 64")
		w.Expect(w.exec(name, "rm large; "+list)).To(Equal(before))
	}
}

// A workspace that stops on one node starts on the other with all that its pod had written.
func TestMove(t *testing.T) {
	w := newWorld(t)
	ws := w.workspace("web", env.a, empty())
	w.pod("first", ws, idle)
	w.exec("first", write)
	before := w.exec("first", list)
	w.removePod("first")
	w.patch("web", `{"spec":{"state":"Stopped"}}`)
	w.await("web", "Stopped", nil)
	w.patch("web", fmt.Sprintf(`{"spec":{"state":"Running","nodeName":%q}}`, env.b.Name))
	w.pod("second", w.await("web", "Running", env.b), idle)
	w.Expect(w.exec("second", list)).To(Equal(before))
}
