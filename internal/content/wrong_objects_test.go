package content_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// What the store holds is not what was stored: a start says which object of which backup of which workspace it is, and what to do. It lets
// nobody at what was restored until then, harms no other workspace, and goes on once the object is back.
func TestS10_WrongObjectsAreNamed(t *testing.T) {
	t.Parallel()
	const (
		restore = `backup 1\.1 of workspace team/web cannot be read: restore backup 1\.1 of workspace team/web: `
		read    = `the newest backup of workspace team/web cannot be read: workspace web in domain team: read backup 1\.1: object is damaged: KEY: `
	)
	flip := func(data, _ []byte) []byte { data[len(data)/2] ^= 1; return data }
	cut := func(data, _ []byte) []byte { return data[:len(data)/2] }
	swap := func(_, others []byte) []byte { return others }
	for what, c := range map[string]struct {
		of   string                           // "commit" or "pack"
		harm func(data, others []byte) []byte // nil: no object
		want string
	}{
		"a bit flipped in a pack":    {"pack", flip, restore + `.*PACK.*damaged`},
		"a truncated pack":           {"pack", cut, restore + `.*PACK.*`},
		"a pack that is another's":   {"pack", swap, restore + `.*PACK.*`},
		"no pack":                    {"pack", func(_, _ []byte) []byte { return nil }, restore + `.*PACK.*object not found`},
		"a truncated commit":         {"commit", cut, read + `it does not end with its checksum`},
		"a bit flipped in a commit":  {"commit", flip, read + `the checksum differs`},
		"a commit that is another's": {"commit", swap, read + `it says it is backup 1\.1 of workspace "api" in domain "team"`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f, r := backedUp(t)
			r.Expected.Hash = "" // of the commit, which the object has as well
			api := f.other("api")
			web, _ := f.commit("1.1")
			keys := map[string][]string{"pack": {packKey(web.Packs[0]), f.newPack(web.Packs[0].ID)}, "commit": {firstKey(f, "web"), firstKey(f, "api")}}[c.of]
			data, others := f.read(keys[0]), f.read(keys[1])
			back := f.hide(f.at(keys[0]))
			if data = c.harm(data, others); data != nil {
				f.put(keys[0], string(data))
			}
			b := f.node("node-b")
			want := strings.NewReplacer("PACK", web.Packs[0].ID, "KEY", keys[0]).Replace(c.want)
			f.Expect(b.refused(r)).To(MatchError(MatchRegexp(`^` + want +
				`: bring the object back from a copy of the store, or stop the workspace and set spec\.restore to another backup$`)))
			f.Expect(b.tryFill(api)).To(Succeed(), "another workspace")
			back()
			f.Expect(b.tryFill(r)).To(Succeed())
			f.Expect(b.files()).To(Equal("file=one"))
		})
	}
}

// sharing has two backups and a snapshot that need one pack, which is then lost, and returns who is said to need it.
func sharing(t *testing.T) (f *fixture, n *node, told *[]string, needed string) {
	t.Helper()
	f = newFixture(t)
	n = f.node("node-a")
	n.fill(1)
	n.write("file", "one")
	n.backup(1)
	n.write("other", "two")
	n.backup(1)
	first, _ := f.commit("1.1")
	f.Expect(n.Snapshot(f.ctx, saveRequest(1), "nightly", true)).Error().NotTo(HaveOccurred())
	f.hide(f.at(packKey(first.Packs[0])))
	return f, n, &[]string{}, "pack " + first.Packs[0].ID + " is needed by 1.2, 1.1 of workspace web; snapshots nightly"
}

// tells has the node note of which damage it tells.
func (n *node) tells(told *[]string) {
	n.Damaged = func(d content.Damage) { *told = append(*told, d.String()) }
}

// A start that fails of a lost pack names all that need it, and tells the node once.
func TestS10_AStartNamesAllThatNeedALostPack(t *testing.T) {
	t.Parallel()
	f, _, told, needed := sharing(t)
	b := f.node("node-b")
	b.tells(told)
	for range 2 {
		f.Expect(b.refused(fillRequest(2))).To(MatchError(ContainSubstring("object not found; " + needed + ": bring the object back")))
	}
	f.Expect(*told).To(HaveLen(1))
	f.Expect((*told)[0]).To(And(HavePrefix("domain team: restore backup 1.2 of workspace team/web: "), ContainSubstring(". "+needed+". Bring the object back")))
}

// A backup goes on without a lost pack, and tells the node of those that cannot.
func TestS10_ABackupNamesAllThatNeedALostPack(t *testing.T) {
	t.Parallel()
	f, n, told, needed := sharing(t)
	n.restart()
	n.tells(told)
	n.write("file", "three")
	n.backup(1)
	n.backup(1)
	f.Expect(*told).To(HaveLen(1))
	f.Expect((*told)[0]).To(And(HavePrefix("domain team: look for pack: "), ContainSubstring("object not found. "+needed+". Bring")))
	b := f.node("node-b")
	f.Expect(b.tryFill(fillRequest(2))).To(Succeed())
	f.Expect(b.files()).To(Equal("file=three other=two"))
}

// A store that takes a commit, and has other bytes then, costs a number: the next attempt has the next one.
func TestS10_ACommitThatTheStoreCorruptsCostsANumber(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := f.node("node-a")
	n.fill(1)
	n.write("file", "one")
	n.backup(1)
	n.write("file", "two")
	n.fault = func(op, key string) error {
		if op != "put" || !strings.Contains(key, "/w/web/") {
			return nil
		}
		n.fault = nil // the next one is right
		f.put(key, "{}")
		return errBroken
	}
	n.restart()
	f.Expect(n.Backup(f.ctx, saveRequest(1))).To(MatchError(errBroken))
	n.backup(1)
	f.Expect(f.entries()).To(Equal("1.3 1.2 1.1 1.0"))
	f.Expect(n.release(1)).To(Equal("1.3"))
	b := f.node("node-b")
	f.Expect(b.tryFill(fillRequest(2))).To(Succeed())
	f.Expect(b.files()).To(Equal("file=two"))
}

// other makes a backup of another workspace, and returns how it is filled elsewhere.
func (f *fixture) other(name string) content.FillRequest {
	f.t.Helper()
	n := f.node("node-" + name)
	s := content.Subject{UID: "uid-" + name, Namespace: "team", Name: name, Class: "default", Claim: 1}
	f.Expect(n.tryFill(content.FillRequest{Subject: s, InUse: idle})).To(Succeed())
	f.Expect(os.WriteFile(filepath.Join(n.Volumes["default"].Path(s.UID, volume.Published), "file"), []byte("of "+name), 0o600)).To(Succeed())
	f.Expect(n.Backup(f.ctx, content.SaveRequest{Subject: s})).To(Succeed())
	s.Claim = 2
	return content.FillRequest{Subject: s, InUse: idle}
}

func (f *fixture) read(key string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.at(key))
	f.Expect(err).NotTo(HaveOccurred())
	return data
}

// newPack is the key of the pack that is another one than id.
func (f *fixture) newPack(id string) string {
	f.t.Helper()
	all := matching(f.packs(), "/")
	f.Expect(all).To(HaveLen(2))
	if strings.HasSuffix(all[0], id) {
		return all[1]
	}
	return all[0]
}

// firstKey is that of a workspace's newest commit.
func firstKey(f *fixture, workspace string) string {
	f.t.Helper()
	objects, err := f.store.List(f.ctx, "d/team/w/"+workspace+"/", "", 1)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(objects).To(HaveLen(1))
	return objects[0].Key
}
