package cmd

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

const (
	// outagePatience is how long the API server may take to answer before it is called away. A daemon that starts finds much
	// that is due; beginning it only to leave it to the reconcilers would be waste.
	outagePatience = 30 * time.Second
	// outageInterval is the pause between two backups of one volume while nobody can be asked for another: the default of
	// spec.backup.interval.
	outageInterval = 10 * time.Minute
	// outageTick is how often it is looked for what is due.
	outageTick = 10 * time.Second
)

// outage keeps up the backups of what lies on the node while the API server does not answer a daemon that starts: the volumes
// are in use. Journal and markers say all that is needed: what is held, under which claim, and when it was saved last. Whatever
// an object would have to say, triggers and retention, waits for the answer.
type outage struct {
	logger logr.Logger
	keeper *content.Keeper
	// found is what lies on the node.
	found []content.Subject
	// limit is how many backups are made at once, timeout the deadline of each.
	limit   int
	timeout time.Duration

	patience, interval, tick time.Duration
}

func newOutage(logger logr.Logger, cfg config.Config, k *content.Keeper, found []content.Subject) *outage {
	return &outage{
		logger: logger, keeper: k, found: found, limit: cfg.Limits.Backup, timeout: cfg.Content.Timeouts.Backup.Duration,
		patience: outagePatience, interval: outageInterval, tick: outageTick,
	}
}

// bridge calls ask, which waits for the API server's answer, and makes backups meanwhile. When it returns they have ended: from
// then on they are the reconcilers' to make.
func (o *outage) bridge(ctx context.Context, ask func(context.Context) (string, error)) (string, error) {
	backingUp, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.run(backingUp) }()
	answer, err := ask(ctx)
	cancel()
	return answer, errors.Join(err, <-ended)
}

// run makes backups until ctx ends, and waits until those under way have reached a safe point.
func (o *outage) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(o.patience):
	}
	o.logger.Info("the API server does not answer: backups go on without it", "volumes", len(o.found), "interval", o.interval.String())
	backups := jobs.New(map[jobs.Class]int{controllers.ClassBackup: o.limit}, nil, nil)
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		for _, s := range o.found {
			o.visit(ctx, backups, s)
		}
	}, o.tick)
	return backups.Runnable(shutdownGrace)(ctx)
}

// visit starts a backup if one is due and none is under way.
func (o *outage) visit(ctx context.Context, backups *jobs.Manager, s content.Subject) {
	key := jobs.Key{UID: s.UID, Op: "Backup"}
	if job := backups.State(key); job.Phase == jobs.Done && job.Err != nil {
		o.logger.Error(job.Err, "backup failed while the API server does not answer", "workspace", s.String())
	}
	backups.Forget(key)
	due, err := o.due(ctx, s)
	if err != nil {
		o.logger.Error(err, "a volume cannot be looked at", "workspace", s.String())
	}
	if due.IsZero() || due.After(o.keeper.Now()) {
		return
	}
	backups.Start(key, controllers.ClassBackup, o.timeout, func(ctx context.Context, _ func(jobs.Progress)) (any, error) {
		return nil, o.keeper.Backup(ctx, content.SaveRequest{Subject: s})
	})
}

// due returns when the next backup of a volume is to be made; the zero time if it holds nothing to save.
func (o *outage) due(ctx context.Context, s content.Subject) (time.Time, error) {
	seen, err := o.keeper.Observe(ctx, s)
	if err != nil || !seen.Finished() || seen.Marker.Released != "" {
		return time.Time{}, err
	}
	b := seen.Journal.Backup
	last := later(b.CheckedAt, seen.Marker.Content.Finished)
	if b.Reason == v1.ReasonFenced { // each time all of it is saved
		last = later(last, b.LastFailure)
	}
	return later(last.Add(content.Jitter(o.interval, s.UID)), b.NextAttempt), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
