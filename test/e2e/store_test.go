//go:build e2e

package e2e

import (
	"context"
	"net/url"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/nodes"
)

// cutStore has nothing that the pods of nodes send to the store arrive any more, until mend is called or the test ends.
func (w *world) cutStore(of ...*nodes.Node) (mend func(ctx context.Context)) {
	w.t.Helper()
	store, err := url.Parse(env.store.Endpoint)
	w.Expect(err).NotTo(HaveOccurred())
	cut := false
	mend = func(ctx context.Context) {
		if !cut {
			return
		}
		cut = false
		for _, n := range of {
			_, err := n.Run(ctx, "nft delete table ip cut")
			w.Expect(err).NotTo(HaveOccurred())
		}
		w.say("the store can be reached")
	}
	w.cleanup(mend)
	cut = true
	for _, n := range of {
		_, err := n.Run(w.t.Context(), `nft "add table ip cut; add chain ip cut store { type filter hook forward priority 0; };
			add rule ip cut store tcp dport `+store.Port()+` drop"`)
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.say("the store cannot be reached")
	return mend
}

// restore writes the newest backup of a workspace into a new directory of this machine.
func (w *world) restore(name string) (dir string) {
	w.t.Helper()
	dir = filepath.Join(w.t.TempDir(), "restored")
	_, err := env.archive(w.t.Context(), "restore", "--domain", w.namespace, "--workspace", name, dir)
	w.Expect(err).NotTo(HaveOccurred())
	return dir
}

// here runs a shell script in a directory of this machine, and returns what it prints.
func (w *world) here(dir, script string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "sh", "-euc", "export LC_ALL=C; "+script)
	cmd.Dir = dir
	out, err := output(cmd)
	w.Expect(err).NotTo(HaveOccurred())
	return out
}
