package cmd

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/logs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/server"
)

// reloader takes over what changes in the configuration file while the daemon runs, and says what does not.
type reloader struct {
	log        *logs.Log
	workspaces *controllers.WorkspaceReconciler
	chores     *chores
	store      *storeChain
	service    *server.Server
	metrics    *metrics.Metrics
	events     nodeEvents
	// changed has the node reported anew.
	changed func()

	mu      sync.Mutex
	outcome config.Outcome
	read    time.Time
}

// run watches the file until ctx ends.
func (r *reloader) run(file string, running config.Config) func(context.Context) error {
	return config.NewWatcher(file, running, r.apply, r.report).Run
}

// apply gives everyone the settings that may change while he works. Each key that the configuration calls live has its place here.
func (r *reloader) apply(c config.Config) {
	r.log.SetLevel(c.Log.Level)
	r.workspaces.Jobs.SetLimits(limits(c.Limits))
	r.store.configure(c)
	r.workspaces.Keeper.Tune(content.Tuning{
		StrayRetention: c.Content.StrayRetention.Duration, RetryMax: c.Content.Timeouts.RetryMax.Duration,
	})
	r.chores.configure(c)
	r.workspaces.Reconfigure(settingsOf(c))
	r.service.Configure(c.Service)
}

// report tells what became of a change of the file.
func (r *reloader) report(o config.Outcome) {
	r.mu.Lock()
	before, first := r.outcome, r.read.IsZero()
	r.outcome = o
	if o.Err == nil {
		r.read = time.Now()
	}
	r.mu.Unlock()
	defer r.changed()
	logger := r.log.WithName("config")
	switch {
	case o.Err != nil:
		r.metrics.Reloaded(metrics.ReloadInvalid)
		logger.Error(o.Err, "the configuration file is refused; the daemon runs on with what it had")
		r.events.tell(corev1.EventTypeWarning, v1.ReasonConfigInvalid, "Reload", o.Err.Error())
	case len(o.Changed) > 0 || strings.Join(o.Pending, " ") != strings.Join(before.Pending, " "):
		r.metrics.Reloaded(metrics.ReloadApplied)
		r.tellChanges(logger, o)
	case !first:
		r.metrics.Reloaded(metrics.ReloadUnchanged)
	}
}

func (r *reloader) tellChanges(logger logr.Logger, o config.Outcome) {
	logger.Info("the configuration has changed", "changed", o.Changed, "pending", o.Pending)
	message := "taken over: " + list(o.Changed)
	if len(o.Pending) > 0 {
		message += "; waits for a restart: " + list(o.Pending)
	}
	r.events.tell(corev1.EventTypeNormal, v1.EventConfigReloaded, "Reload", message)
}

func list(keys []string) string {
	if len(keys) == 0 {
		return "nothing"
	}
	return strings.Join(keys, ", ")
}

// state is how the running configuration stands to the file.
func (r *reloader) state() metrics.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return metrics.Config{Valid: r.outcome.Err == nil, Read: r.read, Pending: len(r.outcome.Pending)}
}

// conditions are what the node says of its configuration and of the store.
func (r *reloader) conditions() []controllers.NodeCondition {
	r.mu.Lock()
	defer r.mu.Unlock()
	reload := controllers.NodeCondition{
		Type: v1.ConditionConfigReloadPending, Reason: v1.ReasonConfigCurrent, Message: "the daemon runs what its configuration file says",
	}
	switch o := r.outcome; {
	case o.Err != nil:
		reload.True, reload.Reason, reload.Message = true, v1.ReasonConfigInvalid, o.Err.Error()
	case len(o.Pending) > 0:
		reload.True, reload.Reason = true, v1.ReasonRestartNeeded
		reload.Message = "restart the daemon to take over " + list(o.Pending)
	}
	return []controllers.NodeCondition{reload, r.storeCondition(time.Now())}
}

// outagePause is how long the store may fail before it is said to be away: single requests fail now and then.
const outagePause = 30 * time.Second

func (r *reloader) storeCondition(now time.Time) controllers.NodeCondition {
	since, err := r.metrics.StoreOutage()
	if since.IsZero() || now.Sub(since) < outagePause {
		return controllers.NodeCondition{
			Type: v1.ConditionStoreAvailable, True: true, Reason: v1.ReasonStoreAnswers, Message: "the object store answers",
		}
	}
	return controllers.NodeCondition{
		Type: v1.ConditionStoreAvailable, Reason: v1.ReasonStoreUnavailable,
		Message: "no answer since " + since.UTC().Format(time.RFC3339) + ": " + string(logs.Redact([]byte(err.Error()))),
	}
}
