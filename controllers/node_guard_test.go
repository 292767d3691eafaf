package controllers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// scarce is a disk of which the test says how full it is, with caches that take a part of it.
type scarce struct {
	volume.Driver

	mu      sync.Mutex
	percent int // in use, without caches
	caches  int // each takes 2 % of the disk
	looks   int
	spare   *int64 // what may still be promised
	err     error
}

func (d *scarce) Capacity(context.Context) (volume.Capacity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
	c := used(int64(d.percent+2*d.caches), 10)
	c.Spare = d.spare
	return c, d.err
}

func (d *scarce) promise(mib int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spare = new(mib << 20)
}

// The caches are templates.
func (d *scarce) Templates(context.Context) ([]volume.Template, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []volume.Template
	for i := range d.caches {
		list = append(list, volume.Template{Name: strconv.Itoa(i)})
	}
	return list, nil
}

func (d *scarce) DropTemplate(context.Context, string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.caches--
	return nil
}

func (d *scarce) KeepTemplate(context.Context, string, string) error { return volume.ErrNotSupported }

func (d *scarce) CloneTemplate(
	context.Context, string, volume.Spec, func(volume.Marker, string) (volume.Marker, error),
) (volume.Info, error) {
	return volume.Info{}, volume.ErrNotSupported
}

func (d *scarce) set(percent, caches int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.percent, d.caches, d.err = percent, caches, err
}

func (d *scarce) measured() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.looks
}

func (d *scarce) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.caches
}

// scarceWorld is a world whose volumes lie on a disk of which the test says how full it is.
func scarceWorld(t *testing.T) (*world, *scarce) {
	t.Helper()
	w, disk := newWorld(t), &scarce{percent: 10}
	w.guarded = config.Default().Node
	w.guarded.Pressure.Inodes.Set = 100
	w.driver = func(d volume.Driver) volume.Driver {
		disk.Driver = d
		return disk
	}
	return w, disk
}

// report waits until the report of this node is as wanted.
func (w *world) report(want func(g Gomega, n *v1.WorkspaceNode)) *v1.WorkspaceNode {
	w.Helper()
	var node v1.WorkspaceNode
	w.Eventually(func(g Gomega) {
		w.workspaces.JobEnded(jobs.Key{}) // look now, not in half a minute
		node = v1.WorkspaceNode{}
		g.Expect(w.Get(w.Context(), client.ObjectKey{Name: w.node}, &node)).To(Succeed())
		want(g, &node)
	}).Should(Succeed())
	return &node
}

// pressure waits until the condition DiskPressure is as wanted, and returns its message.
func (w *world) pressure(want string) (message string) {
	w.Helper()
	w.report(func(g Gomega, n *v1.WorkspaceNode) {
		var summary string
		summary, message = condition(n.Status.Conditions, v1.ConditionDiskPressure)
		g.Expect(summary).To(Equal(want), message)
	})
	return message
}

// taints and annotations of the Node.
func (w *world) marked() (taints []corev1.Taint, annotations map[string]string) {
	w.Helper()
	var node corev1.Node
	w.Expect(w.Get(w.Context(), client.ObjectKey{Name: w.node}, &node)).To(Succeed())
	return node.Spec.Taints, node.Annotations
}

// nodeEvents returns what was told of this node, as "Type Reason: message".
func (w *world) nodeEvents() []string {
	w.Helper()
	var list eventsv1.EventList
	w.Expect(w.List(w.Context(), &list, client.InNamespace("default"))).To(Succeed())
	var lines []string
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Name == w.node {
			lines = append(lines, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Note))
		}
	}
	return lines
}

func TestDiskPressureKeepsNewWorkspacesOff(t *testing.T) {
	w, disk := scarceWorld(t)
	w.guarded.TaintUnderPressure = true
	w.start()
	w.machine(false)
	old := w.create("old")
	w.running(old)
	w.write(old, "file", "text")
	w.pressure("False/EnoughRoom")

	disk.set(92, 0, nil)
	const says = "its disk has 92 % of its bytes in use (the limit is 90 %, and it holds until 85 %)"
	w.Expect(w.pressure("True/Bytes")).To(Equal("class default takes no new workspaces: " + says))
	w.Eventually(func() []corev1.Taint { taints, _ := w.marked(); return taints }).Should(
		ContainElement(corev1.Taint{Key: "workspace.wsdaemon.dev/disk-pressure", Effect: "NoSchedule"}))
	late := w.create("late")
	w.Expect(w.becomes(late, "VolumeReady", "False/InsufficientCapacity")).To(Equal("node " + w.node + " takes no new workspaces of class default: " +
		"the disk of volume class default has 92 % of its bytes in use (the limit is 90 %, and it holds until 85 %). " +
		"Remove or stop workspaces on it, enlarge the disk, or choose another node"))
	w.becomes(late, "Ready", "False/InsufficientCapacity")
	w.becomes(late, "Stalled", "absent")
	got := w.now(late)
	w.Expect(got.Status.NodeName).To(BeEmpty(), "it may go to another node")
	w.Expect(got.Finalizers).To(BeEmpty())
	w.backup(old, "under-pressure")
	w.running(old)

	disk.set(86, 0, nil)
	w.report(func(g Gomega, n *v1.WorkspaceNode) {
		g.Expect(n.Status.Classes).To(HaveLen(1))
		g.Expect(n.Status.Classes[0].Pressure).To(Equal([]v1.Resource{"Bytes"}))
		g.Expect(n.Status.Summary).To(Equal("default full (Bytes)"))
	})
	w.becomes(late, "VolumeReady", "False/InsufficientCapacity")
	disk.set(85, 0, nil)
	w.pressure("False/EnoughRoom")
	w.running(late)
	w.Eventually(func() []corev1.Taint { taints, _ := w.marked(); return taints }).ShouldNot(
		ContainElement(HaveField("Key", "workspace.wsdaemon.dev/disk-pressure")))
	w.Eventually(w.nodeEvents).Should(ContainElements(
		"Warning DiskPressure: class default takes no new workspaces: "+says,
		"Normal DiskPressure: every disk that could be measured has enough room"))
}

// A workspace that is larger than what its class may still promise is not taken, and is as soon as there is more; what is there stays.
func TestSizesStayWithinTheDisk(t *testing.T) {
	w, disk := scarceWorld(t)
	disk.promise(64)
	w.start()
	old := w.create("old")
	w.running(old)
	disk.promise(63)
	w.report(func(g Gomega, _ *v1.WorkspaceNode) {
		disks, _ := w.workspaces.guard.last()
		g.Expect(*disks.classes["default"].Spare).To(Equal(int64(63 << 20)))
	})
	late := w.create("late")
	w.Expect(w.becomes(late, "VolumeReady", "False/InsufficientCapacity")).To(HavePrefix(
		"node " + w.node + " may promise 66060288 bytes more to volumes of class default, and this one shall have 67108864: "))
	w.Expect(w.now(late).Status.NodeName).To(BeEmpty(), "it may go to another node")
	w.pressure("False/EnoughRoom")
	w.backup(old, "beside-it")
	small := w.create("small", func(ws *v1.Workspace) { ws.Spec.Volume.Size = resource.MustParse("32Mi") })
	w.running(small)
	disk.promise(64)
	w.pressure("False/EnoughRoom")
	w.running(late)
}

// Between the two thresholds a restart changes nothing, also if the API server is away at first.
func TestDiskPressureOutlivesTheDaemon(t *testing.T) {
	w, disk := scarceWorld(t)
	stop := w.start()
	disk.set(90, 0, nil)
	w.pressure("True/Bytes")
	stop()
	w.workspaces.Keeper.Area.Close()
	disk.set(87, 0, nil)
	way := &cut{err: errors.New("connection refused")}
	w.reader = func(r client.Reader) client.Reader {
		way.Reader = r
		return way
	}
	looked := disk.measured()
	w.start()
	w.Eventually(disk.measured).Should(BeNumerically(">", looked))
	way.set(nil)
	late := w.create("late")
	w.becomes(late, "VolumeReady", "False/InsufficientCapacity")
	w.Eventually(func() string { return w.pressure("True/Bytes") }).Should(ContainSubstring("87 %"))
}

func TestCachesGoUnderPressure(t *testing.T) {
	w, disk := scarceWorld(t)
	w.start()
	w.pressure("False/EnoughRoom")
	disk.set(71, 10, nil)
	w.Eventually(func() int { w.workspaces.JobEnded(jobs.Key{}); return disk.left() }).Should(Equal(7), "85 % is well enough: no more than that go")
	w.pressure("False/EnoughRoom")
	w.Eventually(w.nodeEvents).Should(ContainElement("Normal Evicted: volume class default: 3 caches went because their room was needed"))
	w.Expect(w.workspaces.evictions.counts(w.workspaces.Keeper.Volumes)).To(Equal(map[string]int{"default": 3}))

	disk.set(89, 2, nil)
	w.Eventually(func() int { w.workspaces.JobEnded(jobs.Key{}); return disk.left() }).Should(BeZero())
	w.Eventually(func() string { return w.pressure("True/Bytes") }).Should(ContainSubstring("89 %"))
}

func TestClassThatCannotBeUsedIsNamed(t *testing.T) {
	w, disk := scarceWorld(t)
	w.start()
	ready := func(want string) (message string) {
		w.report(func(g Gomega, n *v1.WorkspaceNode) {
			var summary string
			summary, message = condition(n.Status.Conditions, v1.ConditionReady)
			g.Expect(summary).To(Equal(want), message)
		})
		return message
	}
	ready("True/Running")
	disk.set(0, 0, fmt.Errorf("measure pool: %w: volume group ws has no thin pool pool", volume.ErrNoGroup))
	const says = "measure pool: volume group or thin pool not found: volume group ws has no thin pool pool"
	w.Expect(ready("False/VolumeGroupNotFound")).To(Equal("volume class default cannot be used: " + says))
	node := w.report(func(g Gomega, n *v1.WorkspaceNode) {
		g.Expect(n.Status.Summary).To(Equal("default VolumeGroupNotFound"))
	})
	w.Expect(node.Status.Classes).To(Equal([]v1.ClassCapacity{{Name: "default", Driver: "directory", Reason: "VolumeGroupNotFound", Message: says}}))
	w.safeToRemove("False/VolumeGroupNotFound")
	disk.set(10, 0, nil)
	ready("True/Running")
	w.report(func(g Gomega, n *v1.WorkspaceNode) {
		g.Expect(n.Status.Summary).To(Equal("default 85Gi of 100Gi free"))
	})
	w.Eventually(w.nodeEvents).Should(ContainElements("Warning VolumeGroupNotFound: volume class default cannot be used: "+says,
		"Normal Running: the daemon serves this node"))
}

func TestNodeIsProtectedFromScaleDownWhileItHoldsContent(t *testing.T) {
	w, _ := scarceWorld(t)
	w.start()
	w.machine(false)
	annotations := func() map[string]string {
		w.workspaces.JobEnded(jobs.Key{})
		_, all := w.marked()
		return all
	}
	ours := map[string]string{v1.AnnotationScaleDown: "true", v1.AnnotationScaleDownOurs: "true"}
	w.safeToRemove("True/UpToDate")
	w.Expect(annotations()).To(BeEmpty())
	ws := w.create("web")
	w.running(ws)
	w.Eventually(annotations).Should(Equal(ours))
	w.stopped(ws)
	w.Eventually(annotations).Should(BeEmpty())

	w.patch(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.node}}, "metadata: {annotations: {"+v1.AnnotationScaleDown+": 'false'}}")
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Eventually(func() string { return w.safeToRemove("False/InUse") }).Should(And(HavePrefix("the node holds workspaces and is not cordoned; "),
		HaveSuffix(`to "false" on the Node: the cluster autoscaler may remove it all the same`)))
	w.Expect(annotations()).To(Equal(map[string]string{v1.AnnotationScaleDown: "false"}))
}

// The Node of a machine that joins anew owns the report; one that is made before its Node is adopted.
func TestReportBelongsToTheNode(t *testing.T) {
	w, _ := scarceWorld(t)
	w.start()
	owner := func() (uid types.UID) {
		w.report(func(_ Gomega, n *v1.WorkspaceNode) {
			if len(n.OwnerReferences) == 1 {
				uid = n.OwnerReferences[0].UID
			}
		})
		return uid
	}
	is := func() types.UID {
		var node corev1.Node
		w.Expect(w.Get(w.Context(), client.ObjectKey{Name: w.node}, &node)).To(Succeed())
		return node.UID
	}
	w.Expect(owner()).To(BeEmpty())
	w.machine(false)
	w.Eventually(owner).Should(Equal(is()))
	w.Expect(w.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.node}})).To(Succeed())
	w.machine(false)
	w.Eventually(owner).Should(Equal(is()))

	w.Expect(w.Delete(t.Context(), &v1.WorkspaceNode{ObjectMeta: metav1.ObjectMeta{Name: w.node}})).To(Succeed())
	w.Eventually(func() error { // as the garbage collector does
		return w.Get(w.Context(), client.ObjectKey{Name: w.node}, &v1.WorkspaceNode{})
	}).Should(MatchError(ContainSubstring("not found")))
	w.Eventually(owner).Should(Equal(is()))
}

// A Node that somebody else has changed is looked at again; nothing is overwritten, and nothing counts as a failure.
func TestStaleNodeIsNotMarked(t *testing.T) {
	w, _ := scarceWorld(t)
	w.start()
	w.machine(false)
	w.safeToRemove("True/UpToDate")
	var old corev1.Node
	w.Expect(w.Get(t.Context(), client.ObjectKey{Name: w.node}, &old)).To(Succeed())
	w.patch(&old, "spec: {taints: [{key: other, effect: NoSchedule}]}")
	problem, err := w.nodes.mark(t.Context(), &old, marks{taint: true, protect: true})
	w.Expect(problem).To(BeEmpty())
	again, err := (&NodeReconciler{}).failed(err)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(again).To(Equal(ctrl.Result{RequeueAfter: 1e9}))
	taints, annotations := w.marked()
	w.Expect(taints).To(ContainElement(HaveField("Key", "other")))
	w.Expect(taints).NotTo(ContainElement(HaveField("Key", v1.TaintDiskPressure)))
	w.Expect(annotations).To(BeEmpty())
}

// cut is a way to the API server that can be cut.
type cut struct {
	client.Reader

	mu  sync.Mutex
	err error
}

func (c *cut) set(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cut) is() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *cut) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if err := c.is(); err != nil {
		return err
	}
	return c.Reader.Get(ctx, key, o, opts...)
}

// What backups need room for must not wait for the API server.
func TestCachesGoWhileTheServerIsAway(t *testing.T) {
	w, disk := scarceWorld(t)
	way := &cut{}
	w.reader = func(r client.Reader) client.Reader {
		way.Reader = r
		return way
	}
	w.start()
	w.pressure("False/EnoughRoom")
	way.set(errors.New("connection refused"))
	disk.set(91, 3, nil)
	w.Eventually(func() int { w.workspaces.JobEnded(jobs.Key{}); return disk.left() }).Should(BeZero())
	way.set(nil)
	w.pressure("True/Bytes")
}

// A disk that is written to makes no stream of writes, and a node on which jobs end makes no stream of reads.
func TestReportOfFiguresIsRateLimited(t *testing.T) {
	w, disk := scarceWorld(t)
	w.start()
	w.pressure("False/EnoughRoom")
	w.quiet()
	before := len(w.traffic.writes("workspacenodes", w.node))
	for i := range 10 {
		disk.set(20+5*i, 0, nil)
		looked := disk.measured()
		w.Eventually(func() int { w.workspaces.JobEnded(jobs.Key{}); return disk.measured() }).Should(BeNumerically(">", looked))
	}
	w.Expect(len(w.traffic.writes("workspacenodes", w.node))-before).To(BeNumerically("<=", 1), "ten looks that differ in figures only")
	reads := w.traffic.all(func(r *request) bool { return r.verb == "GET" && r.resource == "workspacenodes" && r.name == w.node })
	w.Expect(len(reads)).To(BeNumerically("<", disk.measured()))
	disk.set(95, 0, nil)
	w.pressure("True/Bytes")
	w.report(func(g Gomega, n *v1.WorkspaceNode) { g.Expect(n.Status.Classes[0].Free.String()).To(Equal("0")) })
}

// onTmpfs puts the working area, with all volumes, on a small file system of its own.
func (w *world) onTmpfs(options string) {
	w.Helper()
	w.Expect(unix.Mount("tmpfs", w.area, "tmpfs", 0, options)).To(Succeed())
	w.Cleanup(func() { w.Expect(unix.Unmount(w.area, unix.MNT_DETACH)).To(Succeed()) })
}

// A real disk: what a workspace writes brings pressure, and what it removes ends it.
func TestDiskPressureComesAndGoesWithFiles(t *testing.T) {
	w := newWorld(t)
	w.guarded = config.Default().Node
	w.onTmpfs("size=64m,nr_inodes=4000,mode=0711")
	w.start()
	writer := w.create("writer")
	w.running(writer)
	w.pressure("False/EnoughRoom")
	node := w.report(func(g Gomega, n *v1.WorkspaceNode) { g.Expect(n.Status.WorkingArea).NotTo(BeNil()) })
	w.Expect(node.Status.WorkingArea.Size.String()).To(Equal("64Mi"))
	w.Expect(*node.Status.WorkingArea.Inodes).To(Equal(int64(4000)))
	w.Expect(node.Status.Summary).To(MatchRegexp(`^default [56][0-9]Mi of 64Mi free$`))

	w.write(writer, "large", strings.Repeat("x", 57<<20))
	w.Expect(w.pressure("True/Bytes")).To(MatchRegexp("the disk of the working area has 9[0-9] % of its bytes in use .*; class default takes no new workspaces: .* 9[0-9] %"))
	late := w.create("late")
	w.Expect(w.becomes(late, "VolumeReady", "False/InsufficientCapacity")).To(ContainSubstring("the disk of the working area has 9"))
	w.backup(writer, "on-a-full-disk")
	w.running(writer)
	w.Expect(os.Remove(w.path(writer, "large"))).To(Succeed())
	w.pressure("False/EnoughRoom")
	w.running(late)

	dir := w.path(late, "many")
	w.Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	for i := range 3600 {
		w.Expect(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)).To(Succeed())
	}
	w.Expect(w.pressure("True/Inodes")).To(ContainSubstring("% of its inodes in use"))
	w.Expect(os.RemoveAll(dir)).To(Succeed())
	w.pressure("False/EnoughRoom")
}

// A daemon that starts on a read-only working area says so, keeps what is in use there in use, and takes nothing new until it can.
func TestS9_ReadOnlyAreaAtStart(t *testing.T) {
	w := newWorld(t)
	w.onTmpfs("size=64m,mode=0711")
	stop := w.start()
	old := w.create("old")
	w.running(old)
	w.write(old, "file", "text")
	w.backup(old, "before")
	stop()
	w.workspaces.Keeper.Area.Close()
	remount := func(flags uintptr) {
		w.Expect(unix.Mount("none", w.area, "tmpfs", unix.MS_REMOUNT|flags, "size=64m")).To(Succeed())
	}
	remount(unix.MS_RDONLY)

	w.start()
	node := w.report(func(g Gomega, n *v1.WorkspaceNode) {
		summary, message := condition(n.Status.Conditions, v1.ConditionReady)
		g.Expect(summary).To(Equal("False/ReadOnly"), message)
		g.Expect(message).To(ContainSubstring("mounted read-only: look for errors of the disk"))
	})
	summary, _ := condition(node.Status.Conditions, v1.ConditionSafeToRemove)
	w.Expect(summary).To(Equal("False/ReadOnly"))
	w.Expect(w.gathered()).To(ContainElements("ws_daemon_disk_usable,disk=(working area) 0", "ws_daemon_disk_usable,disk=default 0"))
	w.running(old)
	w.Expect(os.ReadFile(w.path(old, "file"))).To(BeEquivalentTo("text"))
	late := w.create("late")
	w.Expect(w.becomes(late, "VolumeReady", "False/ReadOnly")).To(HavePrefix("node " + w.node + " takes no new workspaces of class default: working area: "))
	w.Expect(w.now(late).Status.NodeName).To(BeEmpty(), "it may go to another node")

	remount(0)
	w.report(func(g Gomega, n *v1.WorkspaceNode) {
		summary, message := condition(n.Status.Conditions, v1.ConditionReady)
		g.Expect(summary).To(Equal("True/Running"), message)
	})
	w.running(late)
	w.backup(old, "after")
}

// unanswering is a disk that does not answer.
type unanswering struct {
	volume.Driver

	answers chan struct{}
}

func (d unanswering) Get(ctx context.Context, id string) (volume.Info, error) {
	<-d.answers
	return d.Driver.Get(ctx, id)
}

func (d unanswering) Capacity(ctx context.Context) (volume.Capacity, error) {
	<-d.answers
	return d.Driver.Capacity(ctx)
}

// More workspaces than there are workers lie on a disk that hangs: those on another disk do not notice.
func TestS7_DiskThatHangsKeepsNobodyElseWaiting(t *testing.T) {
	w := newWorld(t)
	answers := make(chan struct{})
	w.classes["other"] = config.Class{Driver: "directory", AllowUnlimited: true}
	w.classDriver = map[string]func(volume.Driver) volume.Driver{"other": func(d volume.Driver) volume.Driver { return unanswering{d, answers} }}
	w.patience = 100 * time.Millisecond
	w.start()
	var stuck []*v1.Workspace
	for i := range 6 {
		stuck = append(stuck, w.create("stuck-"+strconv.Itoa(i), func(ws *v1.Workspace) { ws.Spec.Volume.Class = "other" }))
	}
	for _, ws := range stuck {
		w.Expect(w.becomes(ws, "VolumeReady", "False/TimedOut")).To(ContainSubstring("the disk does not answer: look at its device (dmesg)"))
	}
	w.report(func(g Gomega, n *v1.WorkspaceNode) {
		summary, message := condition(n.Status.Conditions, v1.ConditionReady)
		g.Expect(summary).To(Equal("False/TimedOut"), message)
		g.Expect(message).To(HavePrefix("volume class other cannot be used: "))
	})
	well := w.create("well")
	w.running(well)
	w.backup(well, "meanwhile")
	close(answers)
	for _, ws := range stuck {
		w.running(ws)
	}
}
