package content_test

import (
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// ring has a node read a key file; "" is one that is lost.
func (n *node) ring(text string) {
	var file atomic.Value
	file.Store(text)
	n.ringOf(&file)
}

// ringOf has a node read a key file that others write meanwhile.
func (n *node) ringOf(file *atomic.Value) {
	n.Keys = func(domain string) (*format.Key, error) {
		text, _ := file.Load().(string)
		if text == "" {
			return nil, errBroken
		}
		key, err := format.ParseKey([]byte(text))
		if err != nil {
			return nil, err
		}
		return key.For(domain)
	}
}

// Keys change while a daemon runs. A key that is lost, wrong or mixed up is an error that names the backup or the domain; nothing is stored
// with it or taken for content, and everything goes on once the key is right.
func TestKeysOfARunningDaemon(t *testing.T) {
	t.Parallel()
	ones, twos := strings.Repeat("1", 64), strings.Repeat("2", 64)
	first, second, wrong := "1:"+ones, "2:"+twos, "2:"+ones
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.ring(first)
	a.fill(1)
	a.write("file", "one")
	a.backup(1)

	a.ring("")
	a.write("file", "two")
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken), "lost")
	a.ring(wrong[2:] + "x")
	f.Expect(a.Backup(f.ctx, saveRequest(1))).To(MatchError(ContainSubstring("64 hex digits")), "no key")
	f.Expect(f.entries()).To(Equal("1.1 1.0"))
	a.ring(second + "\n" + first)
	a.backup(1)
	f.Expect(f.entries()).To(Equal("1.2 1.1 1.0"))

	b.ring(first)
	f.Expect(b.refused(fillRequest(2))).To(MatchError(MatchRegexp(`backup 1\.2 of workspace web in domain team: .*key generation 2, and there is only the key of generation 1`)))
	b.ring(wrong)
	f.Expect(b.refused(fillRequest(2))).To(And(MatchError(history.ErrOtherKey), MatchError(ContainSubstring("domain team"))), "mixed up")
	other := content.Subject{UID: "uid-2", Namespace: "other", Name: "web", Class: "default", Claim: 1}
	f.Expect(b.tryFill(content.FillRequest{Subject: other, InUse: idle})).To(Succeed(), "another domain")
	b.ring(second)
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=two"))
}

// Keys are rotated while a backup is under way, at any request: what comes of it opens with the two keys, whichever sealed it, and once
// there is another backup, with the new one alone.
func TestKeysRotateDuringABackup(t *testing.T) {
	t.Parallel()
	first, second := "1:"+strings.Repeat("1", 64), "2:"+strings.Repeat("2", 64)
	for what, then := range map[string]string{"a new key comes": second + "\n" + first, "the old one goes at once": second} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			at := 1
			for ; rotatedAt(t, at, first, then, second); at++ {
			}
			NewWithT(t).Expect(at).To(BeNumerically(">", 3))
		})
	}
}

// rotatedAt says whether a backup made as many requests.
func rotatedAt(t *testing.T, at int, first, then, second string) bool {
	t.Helper()
	f := newFixture(t)
	n := f.node("node-a")
	var ring atomic.Value
	ring.Store(first)
	n.ringOf(&ring)
	n.fill(1)
	n.write("file", "one")
	n.backup(1)
	n.restart()
	n.ringOf(&ring)
	n.write("more", "two")
	calls := 0
	n.fault = func(string, string) error {
		if calls++; calls == at {
			ring.Store(then)
		}
		return nil
	}
	if err := n.Backup(f.ctx, saveRequest(1)); err == nil {
		f.opens("1.2", second+"\n"+first, "file=one more=two")
	}
	n.fault = nil
	ring.Store(then)
	n.write("file", "three")
	n.backup(1)
	f.opens(strings.Fields(f.entries())[0], second, "file=three more=two")
	return calls >= at
}

// opens makes sure that a key file opens a backup.
func (f *fixture) opens(backup, file, want string) {
	f.t.Helper()
	ring, err := format.ParseKey([]byte(file))
	f.Expect(err).NotTo(HaveOccurred())
	key, err := ring.For("team")
	f.Expect(err).NotTo(HaveOccurred())
	d, _ := f.open()
	c, _ := f.commit(backup)
	dir := f.t.TempDir()
	_, err = content.Standalone{Domain: d, Namespace: "team", Workspace: "web", Key: key}.Restore(f.ctx, c, dir, nil, false, "")
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(files(f, dir)).To(Equal(want))
}
