package test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/test/harness"
)

// quietly is a node whose store is a bucket behind a proxy that can fall silent. Attempts are short, and are made for minutes.
type quietly struct {
	*harness.Node
	store *proxy.Proxy
	asked *atomic.Int32 // requests that fell into the silence
}

// startS3 starts a server for the buckets of a test.
func startS3(t *testing.T) *stores.Server {
	t.Helper()
	s, err := stores.StartS3(t.Context(), t.TempDir(), os.Stderr)
	t.Cleanup(func() { _ = s.Stop() })
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

func newQuietly(t *testing.T, w *harness.World, server *stores.Server) quietly {
	t.Helper()
	g := NewWithT(t)
	p, err := proxy.Start(t.Context(), server.Endpoint)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(p.Close()).To(Succeed()) })
	secret := filepath.Join(w.Dir, "secret")
	g.Expect(os.Mkdir(secret, 0o700)).To(Succeed())
	g.Expect(stores.WriteCredentials(secret)).To(Succeed())
	n := w.Node("a", func(c *config.Config) {
		c.Storage = config.Storage{Kind: config.KindS3, S3: &config.S3{
			Endpoint: p.URL, Bucket: stores.Bucket, Prefix: w.Namespace, Credentials: config.S3Credentials{Directory: secret},
		}}
		c.Content.Timeouts.Store.Duration = 3 * time.Second
	})
	w.Run("archive", "init", "--store", server.URL(w.Namespace, p.URL)+"&credentials-dir="+secret)
	w.Patience *= 2 // it takes ten seconds until progress is reported
	return quietly{n.Supervise(), p, new(atomic.Int32)}
}

// silence has requests wait for as long as the client does; all of them if part is empty, else those that name it.
func (q quietly) silence(part string) {
	q.store.Break(func(r proxy.Request) (f proxy.Fault) {
		if strings.Contains(r.Target, part) {
			q.asked.Add(1)
			f.Delay = time.Hour
		}
		return f
	})
}

// waits waits until a condition says that the store keeps some work waiting, and returns the object.
func (q quietly) waits(ws *harness.Workspace, kind, work string) *v1.Workspace {
	ws.AwaitCondition(kind, metav1.ConditionFalse, v1.ReasonStoreUnavailable)
	return ws.Await("says that it waits for the store", func(*v1.Workspace) error {
		if got := ws.Condition(kind).Message; !strings.HasPrefix(got, work+"; the store s3://"+stores.Bucket+"/") {
			return errors.New(got)
		}
		return nil
	})
}

// While the store accepts connections and answers nothing, whoever looks at a workspace is told so long before an attempt has failed, and
// no longer once the store is back.
func TestS7_SilentStoreIsNamedWhileItIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := startS3(t)
	for name, phase := range map[string]func(*testing.T, *harness.World, quietly){
		"while stopping": silentWhileStopping, "while starting": silentWhileStarting, "while running": silentWhileRunning,
	} {
		t.Run(name, func(t *testing.T) {
			w := env.World(t)
			phase(t, w, newQuietly(t, w, server))
		})
	}
}

func silentWhileStopping(t *testing.T, w *harness.World, a quietly) {
	t.Helper()
	g := NewWithT(t)
	ws := w.Workspace("one", a.Node)
	ws.Ready()
	ws.Write("first", "unsaved")
	a.silence("")
	ws.Stop()
	o := a.waits(ws, v1.ConditionFinalBackup, "the final backup is being made")
	g.Expect(o.Status.Operation.Attempts).To(BeZero(), "no attempt has failed")
	ready := ws.Condition(v1.ConditionReady)
	g.Expect(ready.Reason).To(Equal(v1.ReasonStopping))
	g.Expect(ready.Message).To(MatchRegexp(`^the content is being backed up; the store s3://\S+ has failed since \S+ \S+ \(.*no answer within .*\): see that it runs`))

	versions, began := map[string]bool{}, time.Now()
	asked := a.asked.Load()
	ws.Await("goes on waiting while the store is asked again", func(o *v1.Workspace) error {
		versions[o.ResourceVersion] = true
		if again := a.asked.Load() - asked; again < 3 {
			return fmt.Errorf("it was asked %d times", again)
		}
		return nil
	})
	g.Expect(len(versions)).To(BeNumerically("<=", 2+int(time.Since(began).Seconds())/10), "it is not written oftener than progress is")

	a.store.Break(nil)
	g.Expect(ws.Stopped().Status.Operation).To(BeNil())
	g.Expect(ws.Condition(v1.ConditionReady).Message).NotTo(ContainSubstring("the store"))
	g.Expect(ws.Condition(v1.ConditionFinalBackup).Message).To(Equal("backup 1.1"))
}

func silentWhileStarting(t *testing.T, w *harness.World, a quietly) {
	t.Helper()
	g := NewWithT(t)
	ws := w.Workspace("one", a.Node)
	ws.Ready()
	ws.Write("first", "saved")
	ws.Stop().Stopped()
	a.silence("/p/")
	ws.StartOn(a.Node)
	a.waits(ws, v1.ConditionContentReady, "content is being restored")
	g.Expect(ws.Condition(v1.ConditionReady)).To(And(
		HaveField("Reason", v1.ReasonStoreUnavailable), HaveField("Message", Equal(ws.Condition(v1.ConditionContentReady).Message))))
	a.store.Break(nil)
	ws.Ready()
	g.Expect(ws.Condition(v1.ConditionReady).Message).To(Equal("the content is at " + ws.Content()))
	g.Expect(ws.Read("first")).To(Equal("saved"))
}

func silentWhileRunning(t *testing.T, w *harness.World, a quietly) {
	t.Helper()
	g := NewWithT(t)
	ws := w.Workspace("one", a.Node, harness.WithInterval(time.Second))
	ws.Ready()
	ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	a.store.Break(func(r proxy.Request) (f proxy.Fault) {
		if r.Method == http.MethodPut {
			f.Delay = time.Hour
		}
		return f
	})
	ws.Write("first", "unsaved")
	a.waits(ws, v1.ConditionBackedUp, "a backup is being made")
	g.Expect(ws.Ready().Status.Backup.Attempts).To(BeZero(), "no attempt has failed")
	g.Expect(ws.Condition(v1.ConditionReady).Message).To(Equal("the content is at "+ws.Content()), "its users notice nothing")
	a.store.Break(nil)
	c := ws.AwaitCondition(v1.ConditionBackedUp, metav1.ConditionTrue, v1.ReasonUpToDate)
	g.Expect(c.Message).To(HavePrefix("equal to backup 1."))
	g.Expect(c.Message).NotTo(ContainSubstring("the store"))
}
