package sequences

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// life is what the walk below interrupts: made empty, used, backed up, snapshotted, stopped, started again from the backup,
// changed, and deleted.
func (w *world) life(a *node) {
	w.Helper()
	w.workspace("web", a)
	path := w.running("web", a)
	w.write(path, "file", "one")
	w.Expect(os.MkdirAll(filepath.Join(path, "dir", "deep"), 0o750)).To(Succeed())
	w.write(path, "dir/deep/file", "deep")
	w.backup("web", "first")
	w.snapshot("pic", "web", a)
	w.patch("web", "spec: {state: Stopped}")
	w.stopped("web")
	w.patch("web", "spec: {state: Running}")
	path = w.running("web", a)
	w.Expect(w.read(path, "dir/deep/file")).To(Equal("deep"))
	w.write(path, "file", "two")
	w.delete("web")
	w.gone("web")
}

// snapshot makes a snapshot and waits until it is ready.
func (w *world) snapshot(name, workspace string, n *node) {
	w.Helper()
	s := &v1.Snapshot{Spec: v1.SnapshotSpec{WorkspaceName: workspace, NodeName: n.name}}
	s.Namespace, s.Name = w.namespace, name
	w.Expect(w.Create(w.Context(), s)).To(Succeed())
	w.Eventually(func() string {
		w.Expect(w.Client.Get(w.Context(), client.ObjectKeyFromObject(s), s)).To(Succeed())
		for _, c := range s.Status.Conditions {
			if c.Type == v1.ConditionReady {
				return string(c.Status) + "/" + c.Reason
			}
		}
		return "absent"
	}).Should(Equal("True/Snapshotted"))
}

// rightEnd checks what must be after a life, however often the daemon was killed on the way.
func (w *world) rightEnd(a *node) {
	w.Helper()
	a.clean()
	newest := w.newest("web")
	w.Expect(w.read(newest, "file")).To(Equal("two"))
	w.Expect(w.read(newest, "dir/deep/file")).To(Equal("deep"))
	pins := w.pins("")
	w.Expect(pins).To(HaveLen(1))
	w.Expect(w.read(w.pinned(pins[0]), "file")).To(Equal("one"))
	temps, err := filepath.Glob(filepath.Join(a.area, "*", ".tmp-*"))
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(temps).To(BeEmpty())
	for _, name := range w.names("web") {
		w.Expect(name).To(MatchRegexp(`^[12]\.[0-2]$`), "no number was skipped or written twice")
	}
}

// Killed at any instruction that matters, the daemon goes on after the restart and comes to exactly one right end.
func TestS5_KillAtEveryStep(t *testing.T) {
	t.Parallel()
	traced := newWorld(t)
	trace := filepath.Join(traced.dir, "trace")
	a := traced.newNode("a")
	a.env = []string{"WS_DAEMON_FAULT_TRACE=" + trace}
	a.start()
	traced.life(a)
	traced.rightEnd(a)
	for _, point := range pointsOf(traced, trace) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.newNode("a")
			once := filepath.Join(w.dir, "once")
			a.env = []string{"WS_DAEMON_FAULT=" + point, "WS_DAEMON_FAULT_ONCE=" + once}
			a.start()
			a.respawn("reached for the")
			w.life(a)
			w.rightEnd(a)
			w.Expect(once).To(BeAnExistingFile(), "the daemon was killed at "+point)
		})
	}
}

// pointsOf returns every point that was reached, as name:1, and for those reached more often a later occurrence, too.
func pointsOf(w *world, trace string) []string {
	data, err := os.ReadFile(trace)
	w.Expect(err).NotTo(HaveOccurred())
	count := map[string]int{}
	for name := range strings.Lines(string(data)) {
		count[strings.TrimSpace(name)]++
	}
	w.Expect(len(count)).To(BeNumerically(">", 20), "the points that a life passes")
	var points []string
	for name, n := range count {
		points = append(points, name+":1")
		if n > 1 {
			points = append(points, fmt.Sprintf("%s:%d", name, (n+1)/2+1))
		}
	}
	slices.Sort(points)
	return points
}
