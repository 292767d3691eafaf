package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// outage is a trouble of the store.
type outage struct {
	begin, end func(*harness.World)
	reason     string // of the condition
	message    string // a part of the condition's message
}

func TestS1_StoreUnreachableAtStop(t *testing.T) {
	t.Parallel()
	stopDuring(t, env.World(t), outage{
		(*harness.World).HideStore, (*harness.World).ShowStore, v1.ReasonStoreUnavailable, "no such file or directory",
	})
}

func TestS1_StoreFullAtStop(t *testing.T) {
	t.Parallel()
	stopDuring(t, env.World(t, harness.OnTmpfs(32<<20)), outage{
		(*harness.World).FillStore, (*harness.World).DrainStore, v1.ReasonUploadFailed, "no space left on device",
	})
}

func TestS1_StoreReadOnlyAtStop(t *testing.T) {
	t.Parallel()
	stopDuring(t, env.World(t, harness.OnTmpfs(32<<20)), outage{
		(*harness.World).FreezeStore, (*harness.World).ThawStore, v1.ReasonUploadFailed, "read-only file system",
	})
}

// stopDuring stops a workspace with unsaved work during an outage, which ends only when attempts have begun to back off.
func stopDuring(t *testing.T, w *harness.World, o outage) {
	t.Helper()
	g := NewWithT(t)
	a, b := w.Node("a", retryMax(8*time.Second)), w.Node("b")
	a.Supervise()
	ws := w.Workspace("one", a)
	ws.Ready()
	harness.WriteTree(t, ws.Content(), "first")
	ws.Backup("first")
	ws.Write("unsaved", noise(1<<20))
	want := harness.Snapshot(t, ws.Content())

	o.begin(w)
	ws.Stop()
	c := ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, o.reason)
	g.Expect(c.Message).To(And(ContainSubstring(o.message), ContainSubstring("failing since "), ContainSubstring("next attempt "),
		ContainSubstring("the content stays on the node")))
	since := ws.Object().Status.Operation.StartedAt
	seen := backsOff(ws, v1.OperationFinalBackup, 3)
	g.Expect(seen.Status.Operation.StartedAt).To(Equal(since))
	g.Expect(seen.Status.Operation.LastFailure).To(ContainSubstring(o.message))
	g.Expect(seen.Status.NodeName).To(Equal(a.Name))
	g.Expect(seen.Status.Backup.Latest.Name).To(BeEquivalentTo("1.1"))
	g.Expect(harness.Snapshot(t, ws.Withdrawn())).To(Equal(want))
	o.end(w)

	ws.Stopped()
	c = ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionTrue, v1.ReasonCommitted)
	g.Expect(c.Message).To(Equal("backup 1.2"))
	g.Expect(ws.Object().Status.Operation).To(BeNil())
	g.Expect(a.Deaths()).To(BeZero())
	a.Leftovers()
	b.Start()
	ws.StartOn(b).Ready()
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(want))
}

func retryMax(d time.Duration) func(*config.Config) {
	return func(c *config.Config) { c.Content.Timeouts.RetryMax.Duration = d }
}

// noise is text that does not compress.
func noise(size int) string {
	source := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, size)
	for i := range text {
		text[i] = byte(source.Uint32())
	}
	return string(text)
}

// backsOff waits for the n-th attempt of an operation, after which the next one is longer away than after the first.
func backsOff(ws *harness.Workspace, op v1.OperationType, n int32) *v1.Workspace {
	return ws.Await(fmt.Sprintf("has failed %d times", n), func(o *v1.Workspace) error {
		s := o.Status.Operation
		if s == nil || s.Type != op || s.Attempts < n || s.NextAttempt == nil {
			return fmt.Errorf("its operation is %+v", s)
		}
		if pause := time.Until(s.NextAttempt.Time); pause < 1500*time.Millisecond {
			return fmt.Errorf("the next attempt is %s away", pause)
		}
		return nil
	})
}

func TestS7_StoreUnreachableAtStart(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	a := w.Node("a", retryMax(8*time.Second)).Supervise()
	w.HideStore()
	ws := w.Workspace("one", a)
	// The daemon does not even start without its store, or it says why it waits: either way it goes on by itself.
	w.Eventually("the node has noticed", func() error {
		if a.Deaths() > 0 || strings.Contains(a.Log(), "is it mounted?") {
			return nil
		}
		return errors.New(a.Log())
	})
	w.ShowStore()
	ws.Ready()

	other := w.Workspace("two", a)
	other.Ready()
	w.HideStore()
	third := w.Workspace("three", a)
	c := third.AwaitCondition(v1.ConditionContentReady, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	g.Expect(c.Message).To(ContainSubstring("is it mounted?"))
	seen := backsOff(third, v1.OperationClaim, 2)
	g.Expect(seen.Status.NodeName).To(BeEmpty())
	w.ShowStore()
	third.Ready()
}

func TestS7_StoreUnreachableWhileRunning(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	a := w.Node("a").Supervise()
	ws := w.Workspace("one", a, harness.WithInterval(time.Second))
	ws.Ready()
	ws.Write("first", "first")
	ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	w.HideStore()
	ws.Write("second", "second")
	c := ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	g.Expect(c.Message).To(And(ContainSubstring("failing since "), ContainSubstring("is it mounted?"), ContainSubstring("next attempt ")))
	seen := ws.Await("has failed 3 times", func(o *v1.Workspace) error {
		if b := o.Status.Backup; b == nil || b.Attempts < 3 || b.FailingSince == nil || b.NextAttempt == nil {
			return fmt.Errorf("its backups are %+v", b)
		}
		return nil
	})
	g.Expect(ws.Ready().Status.Volume.Path).To(Equal(ws.Content()), "its users notice nothing")
	since := seen.Status.Backup.FailingSince.Time
	g.Expect(time.Since(since)).To(BeNumerically(">", time.Second))
	w.ShowStore()
	ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	done := ws.Backup("done")
	g.Expect(done.Files).To(BeEquivalentTo(2))
	g.Expect(ws.Object().Status.Backup.Attempts).To(BeZero())
	g.Expect(ws.Object().Status.Backup.FailingSince).To(BeNil())
}

func TestS7_PassedDeadlineOfPodsRemovesNothing(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	a := w.Node("a", func(c *config.Config) { c.Content.Timeouts.Pods.Duration = 2 * time.Second }).Supervise()
	ws := w.Workspace("one", a)
	ws.Ready()
	ws.Write("first", "first")
	pod := w.Pod("shell", ws, a)
	ws.Stop()
	c := ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonWaitingForPods)
	g.Expect(c.Message).To(HavePrefix("pods shell still use the workspace since it was stopped at "))
	c = ws.AwaitCondition(v1.ConditionStalled, metav1.ConditionTrue, v1.ReasonPodsRemain)
	g.Expect(c.Message).To(Equal("pods shell have not ended within 2s: delete them; the content stays until they are gone"))
	ws.Await("is saved as it is", func(o *v1.Workspace) error {
		if b := o.Status.Backup; b == nil || b.Latest == nil {
			return errors.New("there is no backup")
		}
		return nil
	})
	ws.Write("second", "written by the pod")
	g.Expect(ws.Object().Status.NodeName).To(Equal(a.Name))
	want := harness.Snapshot(t, ws.Content())
	w.RemovePod(pod)
	ws.Stopped()
	a.Leftovers()
	ws.StartOn(a).Ready()
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(want))
	g.Expect(ws.Object().Status.Conditions).NotTo(ContainElement(HaveField("Type", v1.ConditionStalled)))
}

func TestS7_PassedDeadlineOfBackupRemovesNothing(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	w := env.World(t)
	short := func(c *config.Config) { c.Content.Timeouts.Backup.Duration = time.Millisecond }
	a := w.Node("a", short, retryMax(8*time.Second)).Start()
	ws := w.Workspace("one", a)
	ws.Ready()
	harness.WriteTree(t, ws.Content(), "first")
	want := harness.Snapshot(t, ws.Content())
	ws.Stop()
	c := ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonTimedOut)
	g.Expect(c.Message).To(ContainSubstring("the content stays on the node"))
	backsOff(ws, v1.OperationFinalBackup, 2)
	a.Stop()
	a.Configure()
	a.Start()
	ws.Stopped()
	a.Leftovers()
	ws.StartOn(a).Ready()
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(want))
}

// The API server is away in one phase of a life after the other. Work that needs no answer from it goes on meanwhile.
func TestS7_APIServerAway(t *testing.T) {
	t.Parallel()
	for name, phase := range map[string]func(*testing.T, *harness.World, *harness.Node){
		"at the start": awayAtStart, "while claiming": awayWhileClaiming, "while initializing": awayWhileInitializing,
		"while running": awayWhileRunning, "while stopping": awayWhileStopping, "while deleting": awayWhileDeleting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := env.World(t)
			phase(t, w, w.Node("a"))
		})
	}
}

func awayAtStart(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	g := NewWithT(t)
	a.Start()
	ws := w.Workspace("one", a)
	ws.Ready()
	ws.Write("first", "first")
	a.Stop()
	a.Proxy.Cut()
	a.Start()
	unanswered(w, a, 2)
	g.Expect(ws.Read("first")).To(Equal("first"))
	a.Proxy.Mend()
	g.Expect(ws.Backup("back").Name).To(BeEquivalentTo("1.1"))
}

func awayWhileClaiming(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	g := NewWithT(t)
	a.Supervise()
	w.Workspace("seen", a).Ready()
	w.HideStore()
	ws := w.Workspace("one", a)
	ws.AwaitCondition(v1.ConditionContentReady, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	a.Proxy.Cut()
	w.ShowStore()
	unanswered(w, a, 2)
	g.Expect(ws.Content()).NotTo(BeADirectory(), "nothing is made before the claim is written")
	a.Proxy.Mend()
	g.Expect(ws.Ready().Status.Claim).To(BeEquivalentTo(1))
	g.Expect(a.Deaths()).To(BeZero())
}

func awayWhileInitializing(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	g := NewWithT(t)
	a.Supervise()
	address, asked, answer := gate(t, w.GitServer())
	ws := w.Workspace("one", a, harness.WithGit(address))
	<-asked
	a.Proxy.Cut()
	close(answer)
	w.Eventually("the content is there without the API server", func() error {
		_, err := os.Stat(filepath.Join(ws.Content(), "README"))
		return err
	})
	unanswered(w, a, 2)
	a.Proxy.Mend()
	g.Expect(ws.Ready().Status.Content.Source).To(Equal(v1.SourceGit))
	g.Expect(ws.Object().Status.Git.Branch).To(Equal("main"))
	g.Expect(a.Deaths()).To(BeZero())
}

// gate stands before a server. It tells by the first channel that it was asked, and answers when the second one is closed.
func gate(t *testing.T, address string) (front string, asked, answer chan struct{}) {
	t.Helper()
	target, err := url.Parse(address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	asked, answer = make(chan struct{}, 100), make(chan struct{})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
	}}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-answer
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + target.Path, asked, answer
}

func awayWhileRunning(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	g := NewWithT(t)
	a.Supervise()
	ws := w.Workspace("one", a, harness.WithInterval(time.Second))
	ws.Ready()
	ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	a.Proxy.Cut()
	last := commitsGoOn(w, ws, 2)
	a.Proxy.Mend()
	reports(ws, last)
	ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	g.Expect(a.Deaths()).To(BeZero())
}

// commitsGoOn changes the tree and waits until it is committed, several times. It returns the number of files.
func commitsGoOn(w *harness.World, ws *harness.Workspace, times int) int64 {
	before := ws.History()[0].Tree.Files
	for i := range times {
		want := before + int64(i) + 1
		ws.Write(fmt.Sprintf("file-%d", want), "more")
		w.Eventually(fmt.Sprintf("%d files are committed without the API server", want), func() error {
			if newest := ws.History()[0]; newest.Tree.Files != want {
				return fmt.Errorf("backup %s has %d", newest.Name, newest.Tree.Files)
			}
			return nil
		})
	}
	return before + int64(times)
}

// reports waits until the object tells of a backup with so many files.
func reports(ws *harness.Workspace, files int64) {
	ws.Await("reports what was done meanwhile", func(o *v1.Workspace) error {
		if latest := o.Status.Backup.Latest; latest.Files != files {
			return fmt.Errorf("the newest backup is %+v, not of %d files", latest, files)
		}
		return nil
	})
}

func awayWhileStopping(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	awayWhileLeaving(t, w, a, func(ws *harness.Workspace) { ws.Stop() }, func(ws *harness.Workspace) { ws.Stopped() })
}

func awayWhileDeleting(t *testing.T, w *harness.World, a *harness.Node) {
	t.Helper()
	awayWhileLeaving(t, w, a, func(ws *harness.Workspace) { ws.Delete() }, func(ws *harness.Workspace) { ws.Gone() })
}

// awayWhileLeaving holds the final backup up by the store, and then by the API server: it cannot tell who uses the content.
func awayWhileLeaving(t *testing.T, w *harness.World, a *harness.Node, leave, left func(*harness.Workspace)) {
	t.Helper()
	g := NewWithT(t)
	a.Supervise()
	ws := w.Workspace("one", a)
	ws.Ready()
	ws.Write("first", "first")
	w.HideStore()
	leave(ws)
	ws.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	want := harness.Snapshot(t, ws.Withdrawn())
	a.Proxy.Cut()
	w.ShowStore()
	unanswered(w, a, 3)
	g.Expect(a.Volumes()).To(ConsistOf(ws.UID), "nothing goes while nobody can say that it is not in use")
	a.Proxy.Mend()
	left(ws)
	a.Leftovers()
	g.Expect(ws.History()).To(HaveLen(1))
	if !ws.Exists() {
		again := w.Workspace("one", a)
		ws.UID = again.UID
	} else {
		ws.StartOn(a)
	}
	ws.Ready()
	g.Expect(harness.Snapshot(t, ws.Content())).To(Equal(want))
	g.Expect(a.Deaths()).To(BeZero())
}

// unanswered waits until the daemon has tried several times in vain to reach the API server.
func unanswered(w *harness.World, n *harness.Node, times int) {
	before := vain(n)
	w.Eventually(fmt.Sprintf("the daemon has asked the API server in vain %d times", times), func() error {
		if now := vain(n) - before; now < times {
			return fmt.Errorf("it has %d times", now)
		}
		return nil
	})
}

func vain(n *harness.Node) int {
	text := n.Log()
	count := strings.Count(text, "connection reset by peer") + strings.Count(text, "connection refused")
	return count + strings.Count(text, ": EOF")
}

// The API server itself goes and comes back, with everybody's watches. This runs beside no other test.
func TestS7_APIServerRestarts(t *testing.T) {
	g := NewWithT(t)
	w := env.World(t)
	a, b := w.Node("a").Supervise(), w.Node("b").Supervise()
	running := w.Workspace("running", a, harness.WithInterval(time.Second))
	stopping := w.Workspace("stopping", b)
	running.Ready()
	stopping.Ready()
	stopping.Write("first", "first")
	running.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	w.HideStore()
	stopping.Stop()
	stopping.AwaitCondition(v1.ConditionFinalBackup, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	w.ShowStore()
	env.Cluster.StopAPI()
	t.Cleanup(func() { _ = env.Cluster.StartAPI(context.WithoutCancel(t.Context())) })
	last := commitsGoOn(w, running, 2)
	g.Expect(env.Cluster.StartAPI(t.Context())).To(Succeed())
	stopping.Stopped()
	b.Leftovers()
	reports(running, last)
	g.Expect(a.Deaths() + b.Deaths()).To(BeZero())
	stopping.StartOn(a).Ready()
	g.Expect(stopping.Read("first")).To(Equal("first"))
}
