package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/logs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/server"
)

// edit changes the node's configuration file.
func (n *node) edit(change func(*config.Config)) {
	c, err := config.Load(n.config)
	n.Expect(err).NotTo(HaveOccurred())
	change(&c)
	data, err := json.Marshal(c)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(os.WriteFile(n.config, data, 0o600)).To(Succeed())
}

// daemon runs the node's daemon until the test ends.
func (n *node) daemon(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := call(ctx, "", n.args(name, "run")...)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		n.Eventually(ended, "30s").Should(Receive(BeNil()))
	})
}

// condition is one of the node's report: its status and reason.
func (n *node) condition(ctx context.Context, name, kind string) func() string {
	return func() string {
		var report v1.WorkspaceNode
		if err := n.Get(ctx, client.ObjectKey{Name: name}, &report); err != nil {
			return err.Error()
		}
		c := apimeta.FindStatusCondition(report.Status.Conditions, kind)
		if c == nil {
			return "absent"
		}
		return string(c.Status) + " " + c.Reason + ": " + c.Message
	}
}

// What may change is taken over by a daemon that runs; the rest is said to wait, and a file that is refused changes nothing.
func TestRunTakesOverAChangedConfiguration(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	metricsAt, healthAt := freeAddress(t), freeAddress(t)
	n.edit(func(c *config.Config) { c.Metrics.Address, c.Health.Address = metricsAt, healthAt })
	name := unique("reload")
	n.daemon(t, name)
	reload := n.condition(t.Context(), name, v1.ConditionConfigReloadPending)
	n.Eventually(reload, "30s").Should(Equal("False ConfigCurrent: the daemon runs what its configuration file says"))
	n.Eventually(n.condition(t.Context(), name, v1.ConditionStoreAvailable), "30s").Should(Equal("True StoreAnswers: the object store answers"))
	n.Eventually(func() string { return fetch(t, "http://"+healthAt+"/readyz").Body }, "30s").Should(Equal("cache ok\ndisks ok\n"))
	scrape := func() string { return fetch(t, "http://"+metricsAt+"/metrics").Body }
	n.Eventually(scrape, "30s").Should(And(
		ContainSubstring(`ws_daemon_job_limit{class="backup"} 2`), ContainSubstring(`ws_daemon_disk_usable{disk="default"} 1`),
		ContainSubstring(`ws_daemon_disk_usable{disk="(working area)"} 1`), ContainSubstring("ws_daemon_config_last_reload_successful 1"), ContainSubstring("ws_daemon_store_fit 1"),
	))

	n.edit(func(c *config.Config) { c.Limits.Backup, c.Content.Git.Program = 7, "/usr/bin/git" })
	n.Eventually(scrape, "30s").Should(And(
		ContainSubstring(`ws_daemon_job_limit{class="backup"} 7`), ContainSubstring("ws_daemon_config_pending_keys 1"),
		ContainSubstring(`ws_daemon_config_reloads_total{result="applied"} 1`),
	))
	n.Eventually(reload, "30s").Should(Equal("True RestartNeeded: restart the daemon to take over content.git.program"))

	n.Expect(os.WriteFile(n.config, []byte(`{"limits": 5}`), 0o600)).To(Succeed())
	n.Eventually(reload, "30s").Should(Equal("True ConfigInvalid: " + n.config + ":1: limits: must be an object, {…}, not 5"))
	n.Eventually(scrape, "30s").Should(And(
		ContainSubstring("ws_daemon_config_last_reload_successful 0"), ContainSubstring(`ws_daemon_job_limit{class="backup"} 7`),
		ContainSubstring(`ws_daemon_config_reloads_total{result="invalid"} 1`),
	))
	n.Expect(fetch(t, "http://"+healthAt+"/readyz").Code).To(Equal(200), "it goes on")
}

// applied is a reloader of parts that are at rest, and what they had from the beginning.
func applied(t *testing.T) (*reloader, *events.FakeRecorder) {
	t.Helper()
	g := NewWithT(t)
	cfg := config.Default()
	m := metrics.New("test", func() metrics.Snapshot { return metrics.Snapshot{} })
	recorder := events.NewFakeRecorder(20)
	workspaces := &controllers.WorkspaceReconciler{
		Keeper: &content.Keeper{}, Jobs: jobs.New(limits(cfg.Limits), nil, nil), Settings: settingsOf(cfg),
	}
	t.Cleanup(func() { g.Expect(workspaces.Jobs.Shutdown(context.WithoutCancel(t.Context()))).To(Succeed()) })
	r := &reloader{
		log: logs.New("json", "info"), workspaces: workspaces, chores: newChores(cfg, workspaces, nil), store: newChain(storetest.Filesystem(t), nil, cfg), metrics: m,
		events: nodeEvents{recorder: recorder, node: "node-a"}, changed: func() {},
		service: server.New(server.Options{Config: cfg.Service, Metrics: m}),
	}
	return r, recorder
}

// Whatever the configuration calls live is applied: each such key has a line here, and each changes something.
func TestEveryLiveKeyIsApplied(t *testing.T) {
	const odd = 77 * time.Minute
	type check struct {
		change func(*config.Config)
		got    func(*reloader) any
		want   any
	}
	var wrapped config.Config // what the store has around it
	stored := func(of func(config.Config) any) func(*reloader) any {
		return func(*reloader) any { return of(wrapped) }
	}
	load := func(class jobs.Class) func(*reloader) any {
		return func(r *reloader) any { return r.workspaces.Jobs.Loads()[class].Limit }
	}
	timeouts := func(of func(config.Timeouts) config.Duration) func(*reloader) any {
		return func(r *reloader) any { return of(r.workspaces.Settings.Timeouts).Duration }
	}
	checks := map[string]check{
		"log.level": {func(c *config.Config) { c.Log.Level = "debug" }, func(r *reloader) any { return r.log.V(1).Enabled() }, true},

		"limits.initialize":  {func(c *config.Config) { c.Limits.Initialize = 77 }, load(controllers.ClassInitialize), 77},
		"limits.backup":      {func(c *config.Config) { c.Limits.Backup = 77 }, load(controllers.ClassBackup), 77},
		"limits.finalBackup": {func(c *config.Config) { c.Limits.FinalBackup = 77 }, load(controllers.ClassFinal), 77},
		"limits.maintain":    {func(c *config.Config) { c.Limits.Maintain = 77 }, load(controllers.ClassMaintain), 77},

		"limits.store.requests": {func(c *config.Config) { c.Limits.Store.Requests = 77 }, stored(func(c config.Config) any { return c.Limits.Store.Requests }), 77},
		"limits.store.uploadBytesPerSecond": {func(c *config.Config) { c.Limits.Store.UploadBytesPerSecond = 77 }, stored(func(c config.Config) any {
			return c.Limits.Store.UploadBytesPerSecond
		}), config.Size(77)},
		"limits.store.downloadBytesPerSecond": {func(c *config.Config) { c.Limits.Store.DownloadBytesPerSecond = 77 }, stored(func(c config.Config) any {
			return c.Limits.Store.DownloadBytesPerSecond
		}), config.Size(77)},
		"content.timeouts.store": {func(c *config.Config) { c.Content.Timeouts.Store.Duration = odd }, stored(func(c config.Config) any {
			return c.Content.Timeouts.Store.Duration
		}), odd},
		"content.timeouts.storeTotal": {func(c *config.Config) { c.Content.Timeouts.StoreTotal.Duration = odd }, stored(func(c config.Config) any {
			return c.Content.Timeouts.StoreTotal.Duration
		}), odd},

		"content.timeouts.initialize": {func(c *config.Config) { c.Content.Timeouts.Initialize.Duration = odd }, timeouts(func(t config.Timeouts) config.Duration { return t.Initialize }), odd},
		"content.timeouts.backup":     {func(c *config.Config) { c.Content.Timeouts.Backup.Duration = odd }, timeouts(func(t config.Timeouts) config.Duration { return t.Backup }), odd},
		"content.timeouts.remove":     {func(c *config.Config) { c.Content.Timeouts.Remove.Duration = odd }, timeouts(func(t config.Timeouts) config.Duration { return t.Remove }), odd},
		"content.timeouts.pods":       {func(c *config.Config) { c.Content.Timeouts.Pods.Duration = odd }, timeouts(func(t config.Timeouts) config.Duration { return t.Pods }), odd},
		"content.timeouts.retryMax":   {func(c *config.Config) { c.Content.Timeouts.RetryMax.Duration = odd }, func(r *reloader) any { return r.workspaces.Settings.RetryMax }, odd},
		"content.backup.interval":     {func(c *config.Config) { c.Content.Backup.Interval.Duration = odd }, func(r *reloader) any { return r.workspaces.Settings.BackupInterval }, odd},
		"content.orphanGrace":         {func(c *config.Config) { c.Content.OrphanGrace.Duration = odd }, func(r *reloader) any { return r.workspaces.Settings.OrphanGrace }, odd},
		"content.strayRetention":      {func(c *config.Config) { c.Content.StrayRetention.Duration = odd }, func(r *reloader) any { return r.workspaces.Keeper.Tuned().StrayRetention }, odd},

		"service.rights": {func(c *config.Config) { c.Service.Rights = []config.Right{{Subject: "CN=odd"}} }, func(r *reloader) any {
			return len(r.service.Configured().Rights)
		}, 1},
		"service.requestsPerSecond": {func(c *config.Config) { c.Service.RequestsPerSecond = 77 }, func(r *reloader) any {
			return r.service.Configured().RequestsPerSecond
		}, 77},
		"service.exports": {func(c *config.Config) { c.Service.Exports = 77 }, func(r *reloader) any { return r.service.Configured().Exports }, 77},

		"node": {func(c *config.Config) { c.Node.ReservePercent = 7 }, func(r *reloader) any { return r.workspaces.Settings.Node.ReservePercent }, 7},

		"content.tombstoneGrace": {func(c *config.Config) { c.Content.TombstoneGrace.Duration = odd }, func(r *reloader) any { return r.chores.now().Grace }, odd},
		"content.collect.delete": {func(c *config.Config) { c.Content.Collect.Delete = true }, func(r *reloader) any { return r.chores.now().Collection.Delete }, true},
		"content.collect.wait":   {func(c *config.Config) { c.Content.Collect.Wait.Duration = odd }, func(r *reloader) any { return r.chores.now().Collection.Wait }, odd},
	}
	keys := make([]string, 0, len(checks))
	for key, c := range checks {
		keys = append(keys, key)
		t.Run(key, func(t *testing.T) {
			g := NewWithT(t)
			r, _ := applied(t)
			wrap := r.store.wrap
			r.store.wrap = func(c config.Config) store.Store {
				wrapped = c
				return wrap(c)
			}
			r.apply(config.Default())
			g.Expect(c.got(r)).NotTo(Equal(c.want))
			changed := config.Default()
			c.change(&changed)
			r.apply(changed)
			g.Expect(c.got(r)).To(Equal(c.want))
		})
	}
	NewWithT(t).Expect(keys).To(ConsistOf(config.LiveKeys()))
}

// The store's new deadlines and limits hold for the next request, also for one that hangs.
func TestNewDeadlinesOfTheStoreHold(t *testing.T) {
	g := NewWithT(t)
	hangs := make(chan struct{})
	defer close(hangs)
	cfg := config.Default()
	chain := newChain(storetest.Faulty(storetest.Filesystem(t), func(string, string) error {
		<-hangs
		return errors.New("over")
	}), nil, cfg)
	cfg.Content.Timeouts.Store.Duration = time.Millisecond
	chain.configure(cfg)
	_, err := chain.outer.Stat(t.Context(), "d/key")
	g.Expect(err).To(MatchError(ContainSubstring("no answer within 1ms")))
}

func TestReloadsAreTold(t *testing.T) {
	g := NewWithT(t)
	r, recorder := applied(t)
	r.report(config.Outcome{})
	g.Expect(recorder.Events).To(BeEmpty(), "it runs what the file says")
	g.Expect(r.state().Valid).To(BeTrue())
	r.report(config.Outcome{Changed: []string{"log.level"}, Pending: []string{"log.format"}})
	g.Expect(<-recorder.Events).To(Equal("Normal ConfigReloaded taken over: log.level; waits for a restart: log.format"))
	r.report(config.Outcome{Pending: []string{"log.format"}, Err: errors.New("/etc/config.json:3: log.level: no")})
	g.Expect(<-recorder.Events).To(Equal("Warning ConfigInvalid /etc/config.json:3: log.level: no"))
	g.Expect(r.state()).To(And(HaveField("Valid", false), HaveField("Pending", 1)))
	r.report(config.Outcome{})
	g.Expect(<-recorder.Events).To(Equal("Normal ConfigReloaded taken over: nothing"))
	r.report(config.Outcome{})
	g.Expect(recorder.Events).To(BeEmpty(), "only the layout has changed")
}

// An outage is a condition, and no secret of an error gets into it.
func TestStoreOutageIsACondition(t *testing.T) {
	g := NewWithT(t)
	r, _ := applied(t)
	s := r.metrics.Store(storetest.Faulty(storetest.Filesystem(t), func(string, string) error {
		return errors.New("GET https://me:secret@store: no route to host")
	}))
	_, err := s.Stat(t.Context(), "d/key")
	g.Expect(err).To(HaveOccurred())
	condition := func(now time.Time) controllers.NodeCondition { return r.storeCondition(now) }
	g.Expect(condition(time.Now()).True).To(BeTrue(), "one request may fail")
	got := condition(time.Now().Add(time.Hour))
	g.Expect(got).To(And(HaveField("True", false), HaveField("Type", "StoreAvailable"), HaveField("Reason", "StoreUnavailable")))
	g.Expect(got.Message).To(And(HavePrefix("no answer since "), HaveSuffix("GET https://[redacted]@store: no route to host")))
	g.Expect(got.Message).To(Equal(condition(time.Now().Add(2*time.Hour)).Message), "it is not written anew while the outage lasts")
}

// Whatever the configuration says of the store's bandwidth holds for the next object: what cannot pass in time is not begun.
func TestNewBandwidthOfTheStoreHolds(t *testing.T) {
	g := NewWithT(t)
	cfg := config.Default()
	chain := newChain(storetest.Filesystem(t), nil, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data := make([]byte, 64<<10)
	g.Expect(chain.outer.Put(ctx, "d/before", data)).To(Succeed())
	cfg.Limits.Store.UploadBytesPerSecond, cfg.Limits.Store.DownloadBytesPerSecond = 77, 77
	chain.configure(cfg)
	g.Expect(chain.outer.Put(ctx, "d/after", data)).To(MatchError(ContainSubstring("wait for bytes of upload")))
	g.Expect(chain.outer.Read(ctx, "d/before", 0, data)).To(MatchError(ContainSubstring("wait for bytes of download")))
}
