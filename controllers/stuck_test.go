package controllers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// volumeDir is where the only volume of the node lies.
func (w *world) volumeDir() string {
	w.Helper()
	w.Expect(w.volumes()).To(HaveLen(1))
	return w.volumes()[0]
}

// A volume that cannot be grown is reported, tried again with pauses, and takes nothing away from its users.
func TestGrowThatFails(t *testing.T) {
	w := newWorld(t)
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.quiet()
	description := filepath.Join(w.volumeDir(), ".ws", "volume.json")
	data, err := os.ReadFile(description)
	w.Expect(err).NotTo(HaveOccurred())
	larger := strings.Replace(string(data), `"inodes":0`, `"inodes":5000`, 1)
	w.Expect(larger).NotTo(Equal(string(data)))
	w.Expect(os.WriteFile(description, []byte(larger), 0o600)).To(Succeed())
	before := len(w.traffic.writes("workspaces", "web"))
	w.patch(ws, "spec: {volume: {size: 128Mi, inodes: 1000}}")
	says := w.becomes(ws, "Stalled", "True/ProvisionFailed")
	w.Expect(says).To(ContainSubstring("a volume never shrinks"))
	w.Expect(w.becomes(ws, "VolumeReady", "True/Unlimited")).To(ContainSubstring("it cannot be grown: resize volume"))
	w.becomes(ws, "Ready", "True/Running")
	w.backup(ws, "goes-on")
	w.quiet()
	w.Expect(w.now(ws).Status.Operation.Type).To(Equal(v1.OperationProvision))
	w.Expect(len(w.traffic.writes("workspaces", "web"))-before).To(BeNumerically("<=", 6), describeAll(w.traffic.writes("workspaces", "web")))

	w.Expect(os.WriteFile(description, data, 0o600)).To(Succeed())
	w.patch(ws, "spec: {volume: {inodes: 1001}}")
	w.becomes(ws, "Stalled", "absent")
	w.Eventually(func() string { return w.becomes(ws, "VolumeReady", "True/Unlimited") }).Should(HaveSuffix("to 128Mi or to 1001 inodes"))
	w.Expect(w.now(ws).Status.Operation).To(BeNil())
}

// A volume that cannot be removed after its release says why, in a condition, until somebody has mended it.
func TestVolumeThatCannotBeRemoved(t *testing.T) {
	for name, policy := range map[string]v1.DeletionPolicy{"stopped": v1.DeletionRetain, "deleted": v1.DeletionDelete} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.driver = func(d volume.Driver) volume.Driver { return intruded{d} }
			w.start()
			ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = policy })
			w.running(ws)
			w.write(ws, "file", "one")
			w.backup(ws, "a")
			late := filepath.Join(w.volumeDir(), "content", "late")
			w.patch(ws, "spec: {state: Stopped}")
			w.Expect(w.becomes(ws, "Stalled", "True/ForeignContent")).To(ContainSubstring("is in the way"))
			w.Expect(w.becomes(ws, "Ready", "False/Stopped")).To(ContainSubstring("the volume cannot be removed"))
			w.Expect(os.RemoveAll(late)).To(Succeed())
			w.patch(ws, "spec: {backup: {trigger: look-again}}")
			w.Eventually(w.volumes).Should(BeEmpty())
			w.becomes(ws, "Stalled", "absent")
			w.gone(ws)
		})
	}
}

// intruded is a driver after whose Withdraw somebody else makes something where users look for the content.
type intruded struct{ volume.Driver }

func (d intruded) Withdraw(ctx context.Context, id string) error {
	if err := d.Driver.Withdraw(ctx, id); err != nil {
		return err
	}
	published := d.Path(id, volume.Published)
	if err := os.Mkdir(published, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(published, "late"), []byte("of a late pod"), 0o600)
}

// A class that was taken out of the configuration: what lies in it is unknown, not lost.
func TestS10_ClassTakenOutOfTheConfiguration(t *testing.T) {
	w := newWorld(t)
	w.classes["fast"] = w.classes["default"]
	stop := w.start()
	ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.Volume.Class = "fast" })
	other := w.create("other", func(ws *v1.Workspace) { ws.Spec.Volume.Class = "fast"; ws.Spec.State = v1.StateStopped })
	w.running(ws)
	w.write(ws, "file", "unsaved")
	path := w.path(ws, "file")
	stop()
	w.workspaces.Keeper.Area.Close()

	fast := w.classes["fast"]
	w.classes = map[string]config.Class{"default": fast}
	stop = w.start()
	w.patch(ws, "spec: {state: Stopped}")
	w.Expect(w.becomes(ws, "Stalled", "True/UnknownClass")).To(ContainSubstring(`add "fast" to volumes.classes`))
	w.becomes(ws, "VolumeReady", "False/UnknownClass")
	w.becomes(other, "Ready", "False/Stopped")
	w.gone(other)
	stop()
	w.workspaces.Keeper.Area.Close()
	w.Expect(path).To(BeAnExistingFile())

	w.classes["fast"] = fast
	w.start()
	w.becomes(ws, "Ready", "False/Stopped")
	w.becomes(ws, "FinalBackup", "True/Committed")
}

// A person discards what a final backup takes too long for: it is not waited for.
func TestDiscardEndsAFinalBackup(t *testing.T) {
	w := newWorld(t)
	held := make(chan struct{}, 1)
	w.hold = func(ctx context.Context, key string) error {
		if !strings.Contains(key, "/p/") {
			return nil
		}
		select {
		case held <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}
	w.start()
	ws := w.create("web")
	w.running(ws)
	w.write(ws, "file", "one")
	w.patch(ws, "spec: {state: Stopped}")
	w.Eventually(held).Should(Receive())
	w.patch(ws, "metadata: {annotations: {workspace.wsdaemon.dev/discard: '1'}}")
	w.becomes(ws, "FinalBackup", "False/Discarded")
	w.Eventually(w.volumes).Should(BeEmpty())
}

// A life leaves nothing in memory.
func TestNothingIsRememberedOfWorkspacesThatAreGone(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, policy := range []v1.DeletionPolicy{v1.DeletionRetain, v1.DeletionDelete} {
		ws := w.create("web", func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = policy })
		w.running(ws)
		w.write(ws, "file", "one")
		w.backup(ws, "a")
		w.stopped(ws)
		w.patch(ws, "spec: {state: Running}")
		w.running(ws)
		w.gone(ws)
		w.Eventually(w.volumes).Should(BeEmpty())
		w.Eventually(func(g Gomega) {
			_, known := w.workspaces.memory.nameOf(string(ws.UID))
			g.Expect(known).To(BeFalse())
			for _, op := range []string{"Claim/0", "Provision/1", "Initialize/1", "Backup/1", "FinalBackup/1", "Remove/1", "Provision/2", "Restore/2", "FinalBackup/2"} {
				g.Expect(w.workspaces.Jobs.Find(op)).To(BeEmpty())
			}
		}).Should(Succeed())
	}
}
