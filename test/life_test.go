package test

import (
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/test/harness"
)

func TestLife(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	a, b := w.Node("a"), w.Node("b")
	a.Supervise()
	b.Supervise()

	ws := w.Workspace("one", a, harness.WithGit(w.GitServer()))
	o := ws.Ready()
	g.Expect(o.Status.Content.Source).To(Equal(v1.SourceGit))
	harness.WriteTree(t, ws.Content(), "first")
	before := harness.Snapshot(t, ws.Content())
	record := ws.Backup("now")
	g.Expect(record.Name).To(BeEquivalentTo("1.1"))
	ws.Stop()
	ws.Stopped()
	a.Leftovers()
	ws.StartOn(b)
	o = ws.Ready()
	g.Expect(o.Status.Content.Source).To(Equal(v1.SourceBackup))
	g.Expect(o.Status.Content.Backup).To(BeEquivalentTo("1.1"))
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(before))

	ws.Write("later", "more")
	ws.Delete()
	ws.Gone()
	b.Leftovers()
	g.Expect(ws.History()).To(HaveLen(2))
}
