package content_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// A template that goes while it is copied costs a restore, and nothing else.
func TestTemplateIsEvictedWhileItIsCopied(t *testing.T) {
	t.Parallel()
	f, b, d := templated(t, 2, "one")
	d.meanwhile = func() { f.Expect(b.EvictTemplate(f.ctx, "default")).To(BeTrue()) }
	c, read := b.begin("uid-3", "one")
	f.Expect([]any{c.Cloned, read}).To(Equal([]any{false, true}))
	f.Expect(c.NotCloned).NotTo(BeEmpty())
	d.meanwhile = nil
	f.Expect(d.names()).To(ConsistOf(c.Template), "it was made anew")
	c, _ = b.begin("uid-4", "one")
	f.Expect(c.Cloned).To(BeTrue())
}

// What a volume began with is given to nobody once the snapshot is deleted; who has it already keeps it.
func TestSnapshotIsDeletedWhileItIsCopied(t *testing.T) {
	t.Parallel()
	f, b, d := templated(t, 2, "one")
	d.meanwhile = func() { f.Expect(b.DropSnapshot(f.ctx, "team", "one")).To(Succeed()) }
	r := fillRequest(1)
	r.UID, r.Name, r.Initializer.SnapshotID = "uid-3", "uid-3", named("one")
	f.Expect(b.Prepare(f.ctx, r, 1<<20, 0)).To(Succeed())
	f.Expect(noBackup(f, b.try(r)).Wanted).To(Equal("snapshot one"))
	o, err := b.Observe(f.ctx, r.Subject)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect([]any{o.Position, o.Finished()}).To(Equal([]any{volume.Staged, false}), "users do not see it")
	f.Expect(files(f, b.Volumes["default"].Path("uid-2", volume.Published))).To(Equal("file=one"))
}
