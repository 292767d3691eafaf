package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// Workspace is an object of the test and where its content lies.
type Workspace struct {
	// Name of the object; UID of the one that was created last under it.
	Name, UID string
	// Node that shall hold it.
	Node *Node

	w *World
}

// WithGit fills a workspace from a repository.
func WithGit(url string) func(*v1.Workspace) {
	return func(ws *v1.Workspace) { ws.Spec.Initializer = v1.Initializer{Git: &v1.GitInitializer{URL: url}} }
}

// WithInterval makes periodic backups.
func WithInterval(d time.Duration) func(*v1.Workspace) {
	return func(ws *v1.Workspace) { ws.Spec.Backup.Interval = &metav1.Duration{Duration: d} }
}

// WithDeletion says what becomes of the backups of a deleted workspace.
func WithDeletion(p v1.DeletionPolicy) func(*v1.Workspace) {
	return func(ws *v1.Workspace) { ws.Spec.DeletionPolicy = p }
}

// Workspace creates a workspace of 1Gi on a node. There are no periodic backups unless an option says so.
func (w *World) Workspace(name string, n *Node, opts ...func(*v1.Workspace)) *Workspace {
	w.t.Helper()
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec: v1.WorkspaceSpec{
			NodeName: n.Name,
			Owner:    v1.Owner{UID: 33333, GID: 33333},
			Volume:   v1.VolumeSpec{Size: resource.MustParse("1Gi")},
			// A short time that nobody asked for would hide what a trigger or a stop does.
			Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
			Backup:      v1.BackupSpec{Interval: &metav1.Duration{}},
		},
	}
	for _, opt := range opts {
		opt(ws)
	}
	w.must(w.Client.Create(w.t.Context(), ws))
	return &Workspace{Name: name, UID: string(ws.UID), Node: n, w: w}
}

func (ws *Workspace) key() client.ObjectKey {
	return client.ObjectKey{Namespace: ws.w.Namespace, Name: ws.Name}
}

func (ws *Workspace) get() (*v1.Workspace, error) {
	var o v1.Workspace
	err := ws.w.Client.Get(ws.w.t.Context(), ws.key(), &o)
	return &o, err
}

// Object reads the object.
func (ws *Workspace) Object() *v1.Workspace {
	ws.w.t.Helper()
	o, err := ws.get()
	ws.w.must(err)
	return o
}

// Exists says whether there is an object of this name.
func (ws *Workspace) Exists() bool {
	ws.w.t.Helper()
	_, err := ws.get()
	ws.w.must(client.IgnoreNotFound(err))
	return err == nil
}

// Content is where the content lies on its node while it is in use.
func (ws *Workspace) Content() string { return ws.ContentOn(ws.Node) }

// ContentOn is where content of this workspace would lie on a node.
func (ws *Workspace) ContentOn(n *Node) string {
	return filepath.Join(n.Area, "volumes", "default", ws.UID, "content")
}

// Write writes a file into the content.
func (ws *Workspace) Write(name, text string) {
	ws.w.t.Helper()
	ws.w.must(os.WriteFile(filepath.Join(ws.Content(), name), []byte(text), 0o600))
}

// Withdrawn is where the content lies that was taken away from its users, and is not saved yet.
func (ws *Workspace) Withdrawn() string {
	return filepath.Join(filepath.Dir(ws.Content()), ".ws", "withdrawn")
}

// Read reads a file of the content.
func (ws *Workspace) Read(name string) string {
	ws.w.t.Helper()
	return ws.w.read(filepath.Join(ws.Content(), name))
}

// Await waits until check accepts the object, which it returns.
func (ws *Workspace) Await(what string, check func(*v1.Workspace) error) *v1.Workspace {
	ws.w.t.Helper()
	var seen *v1.Workspace
	ws.w.Eventually("workspace "+ws.Name+" "+what, func() error {
		o, err := ws.get()
		if err == nil {
			err = check(o)
		}
		seen = o
		return err
	})
	return seen
}

// Condition returns a condition as the API server has it now, the zero value if there is none of its kind.
func (ws *Workspace) Condition(kind string) metav1.Condition {
	ws.w.t.Helper()
	return condition(ws.Object(), kind)
}

func condition(o *v1.Workspace, kind string) metav1.Condition {
	if c := apimeta.FindStatusCondition(o.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// AwaitCondition waits for a condition's status and one of the reasons (any reason if none is given) and returns it.
func (ws *Workspace) AwaitCondition(kind string, status metav1.ConditionStatus, reasons ...string) metav1.Condition {
	ws.w.t.Helper()
	o := ws.Await(fmt.Sprintf("has condition %s=%s/%s", kind, status, strings.Join(reasons, "|")), func(o *v1.Workspace) error {
		c := condition(o, kind)
		if c.Status != status || (len(reasons) > 0 && !slices.Contains(reasons, c.Reason)) {
			return fmt.Errorf("it is %s/%s: %s", c.Status, c.Reason, c.Message)
		}
		return nil
	})
	return condition(o, kind)
}

// AwaitNoCondition waits until there is no condition of a kind.
func (ws *Workspace) AwaitNoCondition(kind string) {
	ws.w.t.Helper()
	ws.AwaitCondition(kind, "")
}

// Ready waits until the workspace runs on its node, by its present spec.
func (ws *Workspace) Ready() *v1.Workspace {
	ws.w.t.Helper()
	return ws.Await("is ready", func(o *v1.Workspace) error {
		c := condition(o, v1.ConditionReady)
		switch {
		case c.Status != metav1.ConditionTrue || o.Status.ObservedGeneration != o.Generation:
			return fmt.Errorf("it is %s/%s as of generation %d of %d: %s", c.Status, c.Reason, o.Status.ObservedGeneration, o.Generation, c.Message)
		case o.Status.NodeName != ws.Node.Name:
			return fmt.Errorf("it is on node %q", o.Status.NodeName)
		}
		return nil
	})
}

// Stopped waits until no node holds the workspace and its node has reported that.
func (ws *Workspace) Stopped() *v1.Workspace {
	ws.w.t.Helper()
	return ws.Await("is stopped", func(o *v1.Workspace) error {
		c := condition(o, v1.ConditionReady)
		if c.Reason != v1.ReasonStopped || o.Status.NodeName != "" || o.Status.ObservedGeneration != o.Generation {
			return fmt.Errorf("it is %s on node %q: %s", c.Reason, o.Status.NodeName, c.Message)
		}
		return nil
	})
}

// Gone waits until the object that was created last is not there any more.
func (ws *Workspace) Gone() {
	ws.w.t.Helper()
	ws.w.Eventually("workspace "+ws.Name+" is gone", func() error {
		o, err := ws.get()
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		case string(o.UID) != ws.UID:
			return nil
		}
		return fmt.Errorf("it is there, with finalizers %v", o.Finalizers)
	})
}

// Patch changes the object, whoever else does so at the same time.
func (ws *Workspace) Patch(change func(*v1.Workspace)) {
	ws.w.t.Helper()
	ws.w.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := ws.get()
		if err != nil {
			return err
		}
		before := o.DeepCopy()
		change(o)
		return ws.w.Client.Patch(ws.w.t.Context(), o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	}))
}

// Annotate sets an annotation.
func (ws *Workspace) Annotate(key, value string) {
	ws.w.t.Helper()
	ws.Patch(func(o *v1.Workspace) { metav1.SetMetaDataAnnotation(&o.ObjectMeta, key, value) })
}

// Stop asks for the workspace to be stopped. Like the other wishes it returns the workspace, and does not wait:
// ws.Stop().Stopped() does.
func (ws *Workspace) Stop() *Workspace {
	ws.w.t.Helper()
	ws.Patch(func(o *v1.Workspace) { o.Spec.State = v1.StateStopped })
	return ws
}

// StartOn asks for the workspace to run on a node.
func (ws *Workspace) StartOn(n *Node) *Workspace {
	ws.w.t.Helper()
	ws.Patch(func(o *v1.Workspace) { o.Spec.State, o.Spec.NodeName = v1.StateRunning, n.Name })
	ws.Node = n
	return ws
}

// FailOverTo asks for the workspace to run on a node while its own is said to be dead.
func (ws *Workspace) FailOverTo(n *Node) *Workspace {
	ws.w.t.Helper()
	ws.Patch(func(o *v1.Workspace) { o.Spec.NodeName, o.Spec.FencedNode = n.Name, ws.Node.Name })
	ws.Node = n
	return ws
}

// Delete asks for the workspace to be deleted.
func (ws *Workspace) Delete() *Workspace {
	ws.w.t.Helper()
	ws.w.must(ws.w.Client.Delete(ws.w.t.Context(), &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: ws.w.Namespace, Name: ws.Name}}))
	return ws
}

// Backup triggers a backup, waits until it is made, and returns it.
func (ws *Workspace) Backup(trigger string) v1.BackupRecord {
	ws.w.t.Helper()
	ws.Patch(func(o *v1.Workspace) { o.Spec.Backup.Trigger = trigger })
	o := ws.Await("has honoured trigger "+trigger, func(o *v1.Workspace) error {
		if o.Status.Backup == nil || o.Status.Backup.Latest == nil || o.Status.Backup.Trigger != trigger {
			return fmt.Errorf("its backups are %+v", o.Status.Backup)
		}
		return nil
	})
	return *o.Status.Backup.Latest
}

// Domain opens the domain of the workspace's backups.
func (ws *Workspace) Domain() *history.Domain {
	ws.w.t.Helper()
	domain, err := history.OpenDomain(ws.w.t.Context(), ws.w.openStore(ws.w.Store), ws.w.Namespace, "unknown", true)
	ws.w.must(err)
	return domain
}

// Names lists the workspace's records in the store, newest first. Number 0 of each claim is the claim, the others are backups.
func (ws *Workspace) Names() []string {
	ws.w.t.Helper()
	entries, err := ws.Domain().Workspace(ws.Name).Entries(ws.w.t.Context())
	ws.w.must(err)
	all := make([]string, 0, len(entries))
	for _, e := range entries {
		all = append(all, e.Name.String())
	}
	return all
}

// AwaitBackup waits until the store has a backup, whatever the object says.
func (ws *Workspace) AwaitBackup(name string) {
	ws.w.t.Helper()
	ws.w.Eventually("there is backup "+name, func() error {
		if all := ws.Names(); !slices.Contains(all, name) {
			return fmt.Errorf("there are %v", all)
		}
		return nil
	})
}

// History reads the workspace's backups, newest first, without the records of claims.
func (ws *Workspace) History() []history.Commit {
	ws.w.t.Helper()
	log := ws.Domain().Workspace(ws.Name)
	entries, err := log.Entries(ws.w.t.Context())
	ws.w.must(err)
	commits := make([]history.Commit, 0, len(entries))
	for _, e := range entries {
		if e.Name.IsClaim() {
			continue
		}
		c, _, err := log.Read(ws.w.t.Context(), e.Name)
		ws.w.must(err)
		commits = append(commits, c)
	}
	return commits
}

// Strays lists the snapshots of what a node had of the workspace and could not commit.
func (ws *Workspace) Strays(n *Node) []string {
	ws.w.t.Helper()
	pins, err := ws.Domain().Pins(ws.w.t.Context(), history.StrayPrefix(ws.Name, n.Name))
	ws.w.must(err)
	ids := make([]string, 0, len(pins))
	for _, p := range pins {
		ids = append(ids, p.ID)
	}
	return ids
}

// AwaitStray waits until there is one such snapshot, and returns its id.
func (ws *Workspace) AwaitStray(n *Node) string {
	ws.w.t.Helper()
	var ids []string
	ws.w.Eventually("node "+n.Name+" has left a stray snapshot", func() error {
		if ids = ws.Strays(n); len(ids) != 1 {
			return fmt.Errorf("there are %v", ids)
		}
		return nil
	})
	return ids[0]
}

// Export unpacks the newest backup by the command line and tar, or what more arguments name: "--snapshot", id. It returns the
// directory.
func (ws *Workspace) Export(which ...string) string {
	ws.w.t.Helper()
	dir := ws.w.t.TempDir()
	file, out := filepath.Join(dir, "tar"), filepath.Join(dir, "out")
	ws.w.must(os.Mkdir(out, 0o700))
	newest := []string{"archive", "export", "--store", "file://" + ws.w.Store, "--domain", ws.w.Namespace, "--workspace", ws.Name, file}
	ws.w.Run(slices.Concat(newest, which)...)
	tar := exec.CommandContext(ws.w.t.Context(), "tar", "-xpf", file, "--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-C", out)
	text, err := tar.CombinedOutput()
	ws.w.g.Expect(err).NotTo(gomega.HaveOccurred(), "%s", text)
	return out
}

// Saved reads a file of what Export unpacks.
func (ws *Workspace) Saved(name string, which ...string) string {
	ws.w.t.Helper()
	return ws.w.read(filepath.Join(ws.Export(which...), name))
}

// Keep makes a Snapshot object of a workspace, on its node, and waits until it is ready.
func (w *World) Keep(name string, ws *Workspace) *v1.Snapshot {
	w.t.Helper()
	snapshot := &v1.Snapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec:       v1.SnapshotSpec{WorkspaceName: ws.Name, NodeName: ws.Node.Name},
	}
	w.must(w.Client.Create(w.t.Context(), snapshot))
	w.Eventually("snapshot "+name+" is ready", func() error {
		if err := w.Client.Get(w.t.Context(), client.ObjectKeyFromObject(snapshot), snapshot); err != nil {
			return err
		}
		if !apimeta.IsStatusConditionTrue(snapshot.Status.Conditions, v1.ConditionReady) {
			return fmt.Errorf("its conditions are %+v", snapshot.Status.Conditions)
		}
		return nil
	})
	return snapshot
}
