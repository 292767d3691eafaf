package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// Snapshot is how things are at a moment.
type Snapshot struct {
	Now  time.Time
	Jobs map[jobs.Class]jobs.Load
	// Journal is how many volumes the journal knows.
	Journal int
	Classes []Class
	// Workspaces by the state that they shall have, and by their conditions.
	Workspaces map[string]int
	Conditions map[Condition]int
	// Unsaved is since when changes may be in no backup; the zero time if there is nothing to save.
	Unsaved time.Time
	Config  Config
}

// Class is what the journal knows of a volume class.
type Class struct {
	Name string
	// Used is what the content of its volumes took when it was last measured, in bytes.
	Used int64
	// Volumes is how many there are, Escaped how many of them have content that their limit does not bind.
	Volumes, Escaped int
	// Fullest is how full the fullest volume is, from 0 to 1; negative if none has a limit.
	Fullest float64
}

// Condition is one that workspaces have.
type Condition struct{ Type, Status, Reason string }

// Config is how the configuration stands to its file.
type Config struct {
	// Valid is whether the file was valid when it was last looked at, and Read when a valid one was read.
	Valid bool
	Read  time.Time
	// Pending is the number of keys that wait for a restart.
	Pending int
}

// collector gives what a snapshot says.
type collector func() Snapshot

// Describe names what there may be.
func (c collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []Definition{
		jobsNow, jobLimit, jobOldest, journalEntries, classUsed, classVolumes, classFullest, classEscaped,
		workspaces, conditions, unsaved, configUp, configTime, configWaits,
	} {
		descs <- d.Desc()
	}
}

// Collect looks.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s, e := c(), emitter{out}
	e.jobs(s)
	e.gauge(journalEntries, float64(s.Journal))
	for _, class := range s.Classes {
		e.class(class)
	}
	for state, n := range s.Workspaces {
		e.gauge(workspaces, float64(n), state)
	}
	for condition, n := range s.Conditions {
		e.gauge(conditions, float64(n), condition.Type, condition.Status, condition.Reason)
	}
	e.time(unsaved, s.Unsaved)
	e.gauge(configUp, bit(s.Config.Valid))
	e.time(configTime, s.Config.Read)
	e.gauge(configWaits, float64(s.Config.Pending))
}

type emitter struct{ out chan<- prometheus.Metric }

func (e emitter) gauge(d Definition, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d.Desc(), prometheus.GaugeValue, value, labels...)
}

// time gives a time, unless there is none.
func (e emitter) time(d Definition, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.gauge(d, float64(t.UnixMilli())/1000, labels...)
	}
}

func (e emitter) jobs(s Snapshot) {
	for class, load := range s.Jobs {
		name := string(class)
		e.gauge(jobsNow, float64(load.Running), name, "running")
		e.gauge(jobsNow, float64(load.Queued), name, "queued")
		e.gauge(jobLimit, float64(load.Limit), name)
		waits := 0.0
		if !load.Oldest.IsZero() {
			waits = max(0, s.Now.Sub(load.Oldest).Seconds())
		}
		e.gauge(jobOldest, waits, name)
	}
}

func (e emitter) class(c Class) {
	e.gauge(classUsed, float64(c.Used), c.Name)
	e.gauge(classVolumes, float64(c.Volumes), c.Name)
	e.gauge(classEscaped, float64(c.Escaped), c.Name)
	if c.Fullest >= 0 {
		e.gauge(classFullest, c.Fullest, c.Name)
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
