package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ktypes "k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/csi/csitest"
	"wsdaemon.dev/ws-daemon/internal/state"
)

func TestPublishAndUnpublish(t *testing.T) {
	w := newWorld(t)
	ended := make(chan ktypes.NamespacedName, 9)
	w.node.OnEnd(func(name ktypes.NamespacedName) { ended <- name })
	w.Expect(w.publish()).To(Succeed())
	w.mounted()
	w.Expect(w.keeper.Uses(wsUID)).To(ConsistOf(And(
		HaveField("Volume", "csi-1"), HaveField("Pod", "shell"), HaveField("PodUID", podUID), HaveField("Since", BeTemporally("~", time.Now(), time.Minute)),
	)))
	w.Expect(os.WriteFile(filepath.Join(w.target, "new"), nil, 0o600)).To(Succeed())
	w.Expect(filepath.Join(w.content(), "new")).To(BeAnExistingFile())
	var fs unix.Statfs_t
	w.Expect(unix.Statfs(w.target, &fs)).To(Succeed())
	w.Expect(fs.Flags & (unix.ST_NOSUID | unix.ST_NODEV | unix.ST_RDONLY)).To(BeEquivalentTo(unix.ST_NOSUID | unix.ST_NODEV))

	w.Expect(w.publish()).To(Succeed(), "again")
	w.mounted()
	w.Expect(w.publish(func(q *csi.NodePublishVolumeRequest) { q.Readonly = true })).To(failWith(codes.AlreadyExists, "readOnly is false there"))
	w.mounted()

	w.Expect(ended).NotTo(Receive())
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
	w.Expect(ended).To(Receive(Equal(ktypes.NamespacedName{Namespace: "team", Name: "web"})))
	w.Expect(w.unpublish()).To(Succeed(), "again")
	w.Expect(os.RemoveAll(filepath.Join(w.kubelet, "pods", podUID))).To(Succeed())
	w.Expect(w.unpublish()).To(Succeed(), "also when the kubelet has removed the pod's directory")
	w.Expect(ended).NotTo(Receive())
}

func TestPublishReadOnly(t *testing.T) {
	w := newWorld(t)
	readOnly := func(q *csi.NodePublishVolumeRequest) { q.Readonly = true }
	w.Expect(w.publish(readOnly)).To(Succeed())
	w.mounted()
	w.Expect(os.WriteFile(filepath.Join(w.target, "new"), nil, 0o600)).To(MatchError(unix.EROFS))
	w.Expect(os.WriteFile(filepath.Join(w.content(), "new"), nil, 0o600)).To(Succeed(), "only the pod's mount is so")
	w.Expect(w.publish(readOnly)).To(Succeed())
	w.Expect(w.publish()).To(failWith(codes.AlreadyExists, "readOnly is true there"))
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
}

// A disk that the kernel has made read-only after an error changes nothing about what pods have mounted, or how.
func TestPublishAgainOnADiskThatIsReadOnly(t *testing.T) {
	g, dir := NewWithT(t), t.TempDir()
	volumes := filepath.Join(dir, "volumes")
	g.Expect(mountTmpfs(volumes)).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(volumes, unix.MNT_DETACH)).To(Succeed()) })
	w := newWorldIn(t, dir)
	w.Expect(w.publish()).To(Succeed())
	w.Expect(unix.Mount("", volumes, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")).To(Succeed())
	w.Expect(os.WriteFile(filepath.Join(w.target, "new"), nil, 0o600)).To(MatchError(unix.EROFS))
	w.Expect(w.publish()).To(Succeed())
	w.Expect(w.publish(func(q *csi.NodePublishVolumeRequest) { q.Readonly = true })).To(failWith(codes.AlreadyExists, "readOnly is false there"))
	w.mounted()
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
}

// Whatever a pod asks for that it cannot have is refused by name.
func TestS10_PublishRefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t)
	attribute := func(key, value string) func(*csi.NodePublishVolumeRequest) {
		return func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[key] = value }
	}
	without := func(key string) func(*csi.NodePublishVolumeRequest) {
		return func(q *csi.NodePublishVolumeRequest) { delete(q.VolumeContext, key) }
	}
	for name, tt := range map[string]struct {
		change func(*csi.NodePublishVolumeRequest)
		want   string
	}{
		"attribute":      {attribute("workspase", "web"), `volumeAttributes: "workspase" is not known, only "workspace": remove it`},
		"no workspace":   {without("workspace"), `"workspace" must name a workspace in the namespace of the pod`},
		"of a namespace": {attribute("workspace", "team/web"), `no workspace can be called "team/web": let "workspace" have its name alone, without the namespace, which is the pod's: at most 63 of`},
		"capital":        {attribute("workspace", "Web"), `no workspace can be called "Web"`},
		"upwards name":   {attribute("workspace", ".."), `no workspace can be called ".."`},
		"long name":      {attribute("workspace", strings.Repeat("w", 64)), `no workspace can be called "www`},
		"no pod":         {without(attributePod), "csi.storage.k8s.io/pod.name): the CSIDriver object workspace.wsdaemon.dev needs podInfoOnMount: true"},
		"no namespace":   {without(attributeSpace), "csi.storage.k8s.io/pod.namespace): the CSIDriver object"},
		"no uid":         {without(attributeUID), "csi.storage.k8s.io/pod.uid): the CSIDriver object"},
		"persistent":     {attribute(attributeInline, "false"), "a PersistentVolume cannot be a workspace"},
		"no volume id":   {func(q *csi.NodePublishVolumeRequest) { q.VolumeId = "" }, "volume_id is missing"},
		"no target":      {func(q *csi.NodePublishVolumeRequest) { q.TargetPath = "" }, "target_path is missing"},
		"no capability":  {func(q *csi.NodePublishVolumeRequest) { q.VolumeCapability = nil }, "volume_capability is missing"},
		"outside":        {func(q *csi.NodePublishVolumeRequest) { q.TargetPath = "/etc/mount" }, "/etc/mount: it is no place for volumes of pods in the kubelet's directory, " + w.kubelet},
		"upwards":        {func(q *csi.NodePublishVolumeRequest) { q.TargetPath = w.kubelet + "/../mount" }, "it is no clean absolute path"},
		"the dir itself": {func(q *csi.NodePublishVolumeRequest) { q.TargetPath = w.kubelet }, "it is no place for volumes of pods"},
		"emptyDir": {func(q *csi.NodePublishVolumeRequest) {
			q.TargetPath = w.kubelet + "/pods/" + podUID + "/volumes/kubernetes.io~empty-dir/x"
		}, "it is no place for volumes of pods"},
		"secret": {func(q *csi.NodePublishVolumeRequest) { q.Secrets = map[string]string{"password": "hunter2"} }, "nodePublishSecretRef: no secret is needed"},
		"block": {func(q *csi.NodePublishVolumeRequest) {
			q.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, "a workspace is a directory, and no block device"},
		"fsType":  {func(q *csi.NodePublishVolumeRequest) { q.VolumeCapability.GetMount().FsType = "ext4" }, `fsType: a workspace has the file system of its volume class, and not "ext4"`},
		"options": {func(q *csi.NodePublishVolumeRequest) { q.VolumeCapability.GetMount().MountFlags = []string{"exec"} }, `mount options: a workspace has none, and not "exec"`},
		"nodes": {func(q *csi.NodePublishVolumeRequest) {
			q.VolumeCapability.AccessMode.Mode = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
		}, "access mode MULTI_NODE_MULTI_WRITER: a workspace is on one node"},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.publish(tt.change)
			NewWithT(t).Expect(err).To(failWith(codes.InvalidArgument, tt.want))
			NewWithT(t).Expect(err).NotTo(MatchError(ContainSubstring("hunter2")))
		})
	}
	w.clean()
}

// A pod that cannot have a workspace is told at once, by whom what has to be done.
func TestPublishRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world)
		code   codes.Code
		want   string
	}{
		"missing": {func(w *world) { w.cache.all = nil; w.cache.put(w.pod) }, codes.NotFound, `workspace team/web does not exist: create it, or correct "workspace" in the pod's volumeAttributes`},
		"stopped": {func(w *world) { w.ws.Spec.State = v1.StateStopped }, codes.FailedPrecondition, "workspace team/web is stopped: set its spec.state to Running"},
		"deleted": {func(w *world) { w.ws.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, codes.FailedPrecondition, "workspace team/web is being deleted"},
		"elsewhere": {func(w *world) {
			w.cache.all = nil
			w.cache.put(w.pod)
			w.ws.Spec.NodeName = "node-b"
			w.server.put(w.ws)
		}, codes.FailedPrecondition, "workspace team/web belongs to node node-b and this pod is on node node-a: let the pod go there"},
		"failed": {func(w *world) {
			w.ws.Status.Conditions = []metav1.Condition{
				condition(v1.ConditionReady, "False", v1.ReasonUnauthorized, "no"), condition(v1.ConditionStalled, "True", v1.ReasonUnauthorized, "the token is refused"),
			}
		}, codes.FailedPrecondition, "workspace team/web cannot be used: Unauthorized: the token is refused"},
		"API server away": {func(w *world) {
			w.cache.all = nil
			w.cache.put(w.pod)
			w.server.err = errors.New("connection refused")
		}, codes.Unavailable, "ask the API server for workspace team/web: connection refused"},
		"unknown pod": {func(w *world) { w.pod.UID = "other"; w.cache.put(w.pod); w.server.put(w.pod) }, codes.FailedPrecondition,
			"pod team/shell with UID " + podUID + " is not on node node-a by what the API server says: static pods cannot use workspaces"},
		"deleted pod": {func(w *world) { w.pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}; w.cache.put(w.pod) }, codes.Aborted, "pod team/shell is being deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.change(w)
			if w.cache.all["workspace/team/web"] != nil {
				w.cache.put(w.ws)
			}
			w.Expect(w.publish()).To(failWith(tt.code, tt.want))
			w.clean()
		})
	}
}

// What a pod says of itself is not believed: the path of its volume says whose it is, and the API server where that is.
func TestS6_PublishBelievesNoForgedPod(t *testing.T) {
	w := newWorld(t)
	const evil = "33333333-3333-3333-3333-333333333333"
	w.target = csitest.Target(t, w.kubelet, evil)
	w.Expect(w.publish()).To(failWith(codes.InvalidArgument, "the volume is of the pod with UID "+evil+", and says to be of \""+podUID+"\""))
	w.Expect(w.publish(func(q *csi.NodePublishVolumeRequest) { q.VolumeContext[attributeUID] = evil })).
		To(failWith(codes.FailedPrecondition, "pod team/shell with UID "+evil+" is not on node node-a by what the API server says"))
	w.clean()
}

// A call waits until the workspace is ready, and is woken when it is.
func TestPublishWaits(t *testing.T) {
	ready := condition(v1.ConditionReady, "True", v1.ReasonRunning, "")
	for name, tt := range map[string]struct {
		before []metav1.Condition
		change func(w *world)
		code   codes.Code
		want   string
	}{
		"until it is ready": {
			[]metav1.Condition{condition(v1.ConditionReady, "False", v1.ReasonInitializing, "")},
			func(w *world) { w.ws.Status.Conditions = []metav1.Condition{ready}; w.cache.put(w.ws) }, codes.OK, "",
		},
		"for the first report": {nil, func(w *world) { w.ws.Status.Conditions = []metav1.Condition{ready}; w.cache.put(w.ws) }, codes.OK, ""},
		"until it is stopped": {
			[]metav1.Condition{condition(v1.ConditionReady, "False", v1.ReasonRestoring, "")},
			func(w *world) { w.ws.Spec.State = v1.StateStopped; w.cache.put(w.ws) }, codes.FailedPrecondition, "workspace team/web is stopped",
		},
		"until the pod is deleted": {
			[]metav1.Condition{condition(v1.ConditionReady, "False", v1.ReasonRestoring, "")},
			func(w *world) { w.pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}; w.cache.put(w.pod) }, codes.Aborted, "pod team/shell is being deleted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ws.Status.Conditions = tt.before
			w.cache.put(w.ws)
			done := make(chan error, 1)
			go func() { done <- w.publish() }()
			w.Eventually(w.waits).Should(BeTrue())
			w.Consistently(done, "50ms").ShouldNot(Receive())
			tt.change(w)
			var err error
			w.Eventually(done).Should(Receive(&err))
			if tt.code == codes.OK {
				w.Expect(err).NotTo(HaveOccurred())
				w.mounted()
				return
			}
			w.Expect(err).To(failWith(tt.code, tt.want))
			w.clean()
		})
	}
}

// waits says whether a call waits for the workspace.
func (w *world) waits() bool {
	w.node.bell.mu.Lock()
	defer w.node.bell.mu.Unlock()
	return len(w.node.bell.waiting) > 0
}

// A passed deadline says what the workspace itself says.
func TestS7_PublishWaitsWithADeadline(t *testing.T) {
	w := newWorld(t)
	w.node.Patience = 100 * time.Millisecond
	w.ws.Status.Conditions = []metav1.Condition{condition(v1.ConditionReady, "False", v1.ReasonInitializing, "the initializer is at work")}
	w.cache.put(w.ws)
	w.Expect(w.publish()).To(failWith(codes.DeadlineExceeded, "workspace team/web: Initializing: the initializer is at work (waited 0s)"))
	w.node.Patience = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := w.node.NodePublishVolume(ctx, w.ask())
	w.Expect(err).To(failWith(codes.DeadlineExceeded, "workspace team/web: Initializing: the initializer is at work (the kubelet waited 0s)"))
	w.Expect(w.waits()).To(BeFalse())
	w.clean()
}

// Before the daemon knows its objects a call waits; once it stops, none does.
func TestPublishAtTheBeginningAndTheEnd(t *testing.T) {
	w := newWorld(t)
	w.node = &Node{Name: here, KubeletDir: w.kubelet, Keeper: w.keeper, Patience: 100 * time.Millisecond, Log: w.node.Log}
	w.Expect(w.publish()).To(failWith(codes.DeadlineExceeded, "the daemon of node node-a is starting"))
	w.node.Patience = 20 * time.Second
	done := make(chan error, 1)
	go func() { done <- w.publish() }()
	w.Eventually(w.waits).Should(BeTrue())
	disconnect := w.connect(w.node)
	w.Eventually(done).Should(Receive(BeNil()))
	w.mounted()
	w.Expect(w.unpublish()).To(Succeed())

	w.ws.Status.Conditions = nil
	w.cache.put(w.ws)
	go func() { done <- w.publish() }()
	w.Eventually(w.waits).Should(BeTrue())
	disconnect()
	var err error
	w.Eventually(done).Should(Receive(&err))
	w.Expect(err).To(failWith(codes.Unavailable, "the daemon is stopping"))
	w.clean()
}

// The kubelet may ask again while the first call still runs, and for another end meanwhile.
func TestCallsForOneTargetOneAtATime(t *testing.T) {
	w := newWorld(t)
	w.ws.Status.Conditions = nil
	w.cache.put(w.ws)
	done := make(chan error, 1)
	go func() { done <- w.publish() }()
	w.Eventually(w.waits).Should(BeTrue())
	w.Expect(w.publish()).To(failWith(codes.Aborted, "an earlier call for "+w.target+" has not ended yet"))
	w.Expect(w.unpublish()).To(failWith(codes.Aborted, "has not ended yet"))
	w.ws.Spec.State = v1.StateStopped
	w.cache.put(w.ws)
	w.Eventually(done).Should(Receive(HaveOccurred()))
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
}

// An object that is behind the disk gives nobody content that was taken away.
func TestPublishOfContentThatIsWithdrawn(t *testing.T) {
	w := newWorld(t)
	w.node.Patience = 100 * time.Millisecond
	w.Expect(w.keeper.Volumes["default"].Withdraw(t.Context(), wsUID)).To(Succeed())
	w.Expect(w.publish()).To(failWith(codes.DeadlineExceeded, "workspace team/web: content is not within reach"))
	w.Expect(w.table()).To(BeEmpty())
	w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
	w.ws.Status.Claim = 8
	w.cache.put(w.ws)
	w.Expect(w.publish()).To(failWith(codes.DeadlineExceeded, "the node knows nothing of workspace team/web under claim 8"))
}

// Where the daemon's mounts do not reach the node, a pod would write into the kubelet's own directory.
func TestS9_PublishNeedsASharedMount(t *testing.T) {
	w := newWorld(t)
	w.Expect(unix.Mount("", w.kubelet, "", unix.MS_PRIVATE, "")).To(Succeed())
	w.Expect(w.publish()).To(failWith(codes.FailedPrecondition,
		w.kubelet+" is not a shared mount: let the DaemonSet mount it with mountPropagation Bidirectional"))
	w.Expect(unix.Mount("", w.kubelet, "", unix.MS_SHARED, "")).To(Succeed())
	w.Expect(w.table()).To(BeEmpty())
	w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
}

// Nothing is mounted over what others have put at a target, and no link leads anywhere.
func TestS6_PublishOnTargetsThatAreTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(w *world) error
		code codes.Code
		want string
	}{
		"files":           {func(w *world) error { return os.MkdirAll(filepath.Join(w.target, "file"), 0o755) }, codes.FailedPrecondition, `"file", which was written while nothing was mounted there`},
		"link":            {func(w *world) error { return os.Symlink("/", w.target) }, codes.FailedPrecondition, "work/mount: not a directory"},
		"link above":      {func(w *world) error { return relink(filepath.Dir(w.target)) }, codes.FailedPrecondition, "work/mount: not a directory"},
		"no directory":    {func(w *world) error { return os.Remove(filepath.Dir(w.target)) }, codes.FailedPrecondition, "no such file or directory"},
		"a file":          {func(w *world) error { return os.WriteFile(w.target, nil, 0o600) }, codes.FailedPrecondition, "not a directory"},
		"something else":  {func(w *world) error { return mountTmpfs(w.target) }, codes.AlreadyExists, "something else is mounted than workspace team/web"},
		"empty directory": {func(w *world) error { return os.Mkdir(w.target, 0o755) }, codes.OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Expect(tt.make(w)).To(Succeed())
			if tt.code == codes.OK {
				w.Expect(w.publish()).To(Succeed())
				w.mounted()
				return
			}
			w.Expect(w.publish()).To(failWith(tt.code, tt.want))
			w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
		})
	}
}

// relink puts a link in the place of a directory.
func relink(dir string) error {
	return errors.Join(os.Rename(dir, dir+".moved"), os.Symlink(dir+".moved", dir))
}

func mountTmpfs(dir string) error {
	return errors.Join(os.Mkdir(dir, 0o755), unix.Mount("none", dir, "tmpfs", 0, ""))
}

// Unpublishing needs no API server, no object, no disk of the volume's class, and no journal.
func TestUnpublishNeedsNothing(t *testing.T) {
	w := newWorld(t)
	w.Expect(w.publish()).To(Succeed())
	w.cache.err, w.server.err = errors.New("away"), errors.New("away")
	w.node = &Node{Name: here, KubeletDir: w.kubelet, Keeper: w.keeper, Log: w.node.Log}
	content := w.content()
	w.keeper.Volumes, w.keeper.Store = nil, nil
	w.Expect(w.keeper.Area.Journal().Delete(wsUID)).To(Succeed())
	w.Expect(unix.Mount(content, w.target, "", unix.MS_BIND, "")).To(Succeed(), "somebody has mounted it twice")
	w.Expect(w.unpublish()).To(Succeed())
	w.Expect(w.table()).To(BeEmpty())
	w.Expect(w.target).NotTo(BeADirectory())
}

// A mount that a process has a file open in stays until that is gone, and so does its use.
func TestUnpublishOfABusyMount(t *testing.T) {
	w := newWorld(t)
	w.Expect(w.publish()).To(Succeed())
	f, err := os.Open(filepath.Join(w.target, "file"))
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.unpublish()).To(failWith(codes.Internal, "unmount "+w.target+": device or resource busy"))
	w.mounted()
	w.Expect(f.Close()).To(Succeed())
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
}

// Two pods have a workspace: each gives back its own.
func TestTwoPods(t *testing.T) {
	w := newWorld(t)
	second := w.target + "-2"
	w.Expect(w.publish()).To(Succeed())
	w.Expect(w.publish(func(q *csi.NodePublishVolumeRequest) { q.TargetPath = second })).To(Succeed())
	w.Expect(w.keeper.Uses(wsUID)).To(HaveLen(2))
	w.Expect(w.unpublish()).To(Succeed())
	w.Expect(w.keeper.Uses(wsUID)).To(ConsistOf(HaveField("Target", second)))
	w.Expect(filepath.Join(second, "file")).To(BeAnExistingFile())
	w.target = second
	w.Expect(w.unpublish()).To(Succeed())
	w.clean()
}

func TestVolumeStats(t *testing.T) {
	w := newWorld(t)
	stats := func(path string) (*csi.NodeGetVolumeStatsResponse, error) {
		return w.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "csi-1", VolumePath: path})
	}
	_, err := stats(w.target)
	w.Expect(err).To(failWith(codes.NotFound, "no workspace is mounted on "+w.target))
	_, err = stats("")
	w.Expect(err).To(failWith(codes.InvalidArgument, "volume_path is missing"))
	w.Expect(w.publish()).To(Succeed())
	_, err = w.keeper.Area.Journal().Update(wsUID, func(e *state.Entry, _ bool) bool {
		e.Usage = state.Usage{Bytes: 4096, Inodes: 2, At: time.Now()}
		return true
	})
	w.Expect(err).NotTo(HaveOccurred())
	got, err := stats(w.target)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(got.GetUsage()).To(HaveLen(2))
	var fs unix.Statfs_t
	w.Expect(unix.Statfs(w.content(), &fs)).To(Succeed())
	bytes, inodes := got.GetUsage()[0], got.GetUsage()[1]
	w.Expect([]any{bytes.GetUnit(), bytes.GetUsed()}).To(Equal([]any{csi.VolumeUsage_BYTES, int64(4096)}))
	w.Expect([]any{inodes.GetUnit(), inodes.GetUsed(), inodes.GetTotal()}).To(Equal([]any{csi.VolumeUsage_INODES, int64(2), int64(fs.Files)}))
	w.Expect(bytes.GetTotal()).To(BeNumerically(">", bytes.GetAvailable()))
}

// A stop and a publish at once: either the pod has the content and the stop waits for it, or it has none.
func TestS1_PublishAndStopAtOnce(t *testing.T) {
	w := newWorld(t)
	w.node.Patience = time.Millisecond
	won := map[bool]int{}
	for round := range 200 {
		stopped := make(chan error, 1)
		go func() { stopped <- w.keeper.Discard(t.Context(), subject(), unused) }()
		published := w.publish() == nil
		taken := <-stopped == nil
		won[published]++
		w.Expect(published && taken).To(BeFalse(), "round %d: the pod's content was taken away", round)
		if published {
			w.mounted()
			w.Expect(w.unpublish()).To(Succeed())
		}
		w.Expect(w.table()).To(BeEmpty())
		w.Expect(w.keeper.Uses(wsUID)).To(BeEmpty())
		if taken { // it is started again
			_, err := w.keeper.Fill(t.Context(), content.FillRequest{Subject: subject(), InUse: unused})
			w.Expect(err).NotTo(HaveOccurred())
		}
	}
	t.Logf("the pod was first %d times, the stop %d times", won[true], won[false])
}

// However many ask at once, everything is given back in the end.
func TestManyPodsAtOnce(t *testing.T) {
	w := newWorld(t)
	const pods = 30
	done := make(chan error, pods)
	for i := range pods {
		go func() {
			target := fmt.Sprintf("%s-%d", w.target, i)
			_, err := w.node.NodePublishVolume(t.Context(), w.ask(func(q *csi.NodePublishVolumeRequest) { q.TargetPath = target }))
			_, err2 := w.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi", TargetPath: target})
			done <- errors.Join(err, err2)
		}()
	}
	for range pods {
		w.Expect(<-done).To(Succeed())
	}
	w.clean()
}
