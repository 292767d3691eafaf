package content_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// ring has a node read a key file that may change whenever a key is needed.
func (n *node) ring(text string) {
	n.Keys = func(domain string) (*format.Key, error) {
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
