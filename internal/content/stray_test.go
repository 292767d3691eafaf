package content_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Content of an earlier stay is saved before it makes room. Somebody who still has it open writes while that happens: it stays
// until it was saved as it is.
func TestS1_ReturningOwnerKeepsWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.write("file", "two")
	open, err := os.OpenFile(a.path("file"), os.O_WRONLY|os.O_APPEND, 0)
	f.Expect(err).NotTo(HaveOccurred())
	defer open.Close()
	b.fill(2)
	var writer *volume.WriterError
	f.Expect(errors.As(a.tryFill(fillRequest(3)), &writer)).To(BeTrue(), "who has it open may write at any time")
	f.Expect(f.pins("stray.")).To(BeEmpty(), "so it is no use to save it now")
	f.Expect(open.Close()).To(Succeed())
	a.fault = func(op, key string) error {
		if op == "put" && strings.Contains(key, "/p/") {
			a.fault = nil
			return os.WriteFile(a.withdrawn("file"), []byte("two, and more"), 0o644)
		}
		return nil
	}
	f.Expect(a.tryFill(fillRequest(3))).To(MatchError(content.ErrChanging))
	f.Expect(os.ReadFile(a.withdrawn("file"))).To(BeEquivalentTo("two, and more"))

	a.later(2)
	f.Expect(a.Provision(f.ctx, subject(3), 1<<30, 0)).To(Succeed())
	stray, err := a.Fill(f.ctx, fillRequest(3))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(f.pinned(stray)).To(Equal("file=two, and more"))
	f.Expect(a.files()).To(Equal("file=one"))
}

// Files that cannot be read keep content of an earlier stay on the node until a person decides about exactly that.
func TestConsentLetsUnreadableContentGo(t *testing.T) {
	for name, decide := range map[string]func(stray string) content.Consent{
		"accept incomplete": func(stray string) content.Consent { return content.Consent{Incomplete: stray} },
		"discard":           func(string) content.Consent { return content.Consent{Discard: 1} },
	} {
		for _, job := range []string{"fill", "remove"} {
			t.Run(name+", "+job, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				a, b := f.node("node-a"), f.node("node-b")
				a.fill(1)
				a.write("file", "one")
				unreadable(f, a.path("secret"))
				b.fill(2)
				try := func(consent content.Consent) error {
					if job == "remove" {
						_, err := a.Remove(f.ctx, subject(1), consent, idle)
						return err
					}
					r := fillRequest(3)
					r.Consent = consent
					return a.tryFill(r)
				}
				var incomplete *content.IncompleteError
				f.Expect(errors.As(try(content.Consent{Incomplete: "1.1", Discard: 2}), &incomplete)).To(BeTrue(), "that is about something else")
				f.Expect(try(decide(incomplete.Backup))).To(Succeed())
				f.Expect(f.pins("stray.")).To(HaveLen(1))
			})
		}
	}
}

// A former owner whose content goes on changing does not fill the store.
func TestStraySnapshotsOfOneStayAreFew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.node("node-a"), f.node("node-b")
	a.fill(1)
	b.fill(2)
	var strays []string
	for i := range 5 {
		a.write("file", fmt.Sprint(i))
		a.later(2 * i)
		strays = append(strays, a.fenced(1))
	}
	f.Expect(f.pins("stray.")).To(Equal([]string{strays[0], strays[3], strays[4]}))
	f.Expect(f.pinned(strays[4])).To(Equal("file=4"))
	a.write("file", "after the clock was set back")
	a.later(-100)
	newest := a.fenced(1)
	f.Expect(f.pinned(newest)).To(Equal("file=after the clock was set back"))
}

// Content that goes without a final backup goes only after what holds it was read back: a store that took it and has other bytes by then is
// found out, and gets all of it once more.
func TestS1_StrayIsReadBack(t *testing.T) {
	t.Parallel()
	for what, prepare := range map[string]func(a *node){
		"a stray snapshot":  func(*node) {},
		"a periodic backup": func(a *node) { a.backup(1) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			a := f.node("node-a")
			a.fill(1)
			a.write("file", "unsaved")
			harmed := false
			a.fault = func(op, key string) error { // as soon as it is committed or pinned
				if op == "put" && (strings.Contains(key, "/s/") || strings.HasSuffix(key, "/7ffffffffffffffe.7ffffffffffffffe")) && !harmed {
					harmed = true
					packs := f.packs()
					f.Expect(packs).To(HaveLen(1))
					flip(f, f.at(packs[0]))
				}
				return nil
			}
			prepare(a)
			stray := a.remove(1)
			f.Expect(harmed).To(BeTrue())
			f.Expect(f.pins("stray.")).To(Equal([]string{stray}), "the one that is whole")
			f.Expect(f.pinned(stray)).To(Equal("file=unsaved"))
		})
	}
}

// A store that never has what it was given keeps the content on the node.
func TestS1_StrayInAStoreThatCorruptsEverything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "unsaved")
	a.fault = func(op, _ string) error {
		if op == "get" {
			for _, key := range f.packs() {
				f.change(key)
			}
		}
		return nil
	}
	_, err := a.Remove(f.ctx, subject(1), content.Consent{}, idle)
	f.Expect(err).To(MatchError(history.ErrDamaged))
	f.Expect(f.pins("stray.")).To(BeEmpty())
	f.Expect(files(f, a.withdrawn(""))).To(Equal("file=unsaved"))
	a.fault = nil
	f.Expect(f.pinned(a.remove(1))).To(Equal("file=unsaved"))
}

// change overwrites an object with zeros.
func (f *fixture) change(key string) {
	f.t.Helper()
	info, err := os.Stat(f.at(key))
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(os.WriteFile(f.at(key), make([]byte, info.Size()), 0o600)).To(Succeed())
}
