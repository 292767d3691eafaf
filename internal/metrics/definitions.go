package metrics

import "github.com/prometheus/client_golang/prometheus"

// Type is what kind of metric it is.
type Type string

// The types of metrics.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Definition is one metric, as docs/operations.md lists it.
type Definition struct {
	// Name is the whole one.
	Name string
	Type Type
	Help string
	// Labels in the order of their values. None has the name of a workspace, a namespace or anything else that grows without a bound.
	Labels []string

	buckets []float64
}

// Define returns the definition of a metric. Its name gets the prefix of the daemon's.
func Define(kind Type, name, help string, labels ...string) Definition {
	return Definition{Name: "ws_daemon_" + name, Type: kind, Help: help, Labels: labels}
}

func (d Definition) with(buckets ...float64) Definition {
	d.buckets = buckets
	return d
}

func (d Definition) counter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

// GaugeVec makes the gauges of a definition.
func (d Definition) GaugeVec() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.Labels)
}

func (d Definition) histogram() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: d.buckets}, d.Labels)
}

// Desc is what collectors describe themselves by.
func (d Definition) Desc() *prometheus.Desc { return prometheus.NewDesc(d.Name, d.Help, d.Labels, nil) }

// What jobs do.
var (
	operations = Define(Counter, "operations_total",
		"Jobs that ended, by what they did, with what result (success, failure, cancelled) and why they failed: a reason that conditions have, too.",
		"operation", "result", "reason")
	operationDuration = Define(Histogram, "operation_duration_seconds", "How long jobs ran, without the time they waited.", "operation", "result").
				with(.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
	operationBytes = Define(Counter, "operation_bytes_total", "Bytes of files that jobs worked on: read by backups, written by restores.", "operation")
	operationFiles = Define(Counter, "operation_files_total", "Files that jobs worked on.", "operation")
	jobsNow        = Define(Gauge, "jobs", "Jobs that run or wait now, by the class whose limit they share.", "class", "phase")
	jobLimit       = Define(Gauge, "job_limit", "How many jobs of a class run at a time.", "class")
	jobWait        = Define(Histogram, "job_wait_seconds", "How long jobs waited until they ran.", "class").
			with(.01, .1, 1, 5, 15, 60, 300, 900, 3600)
	jobOldest = Define(Gauge, "job_oldest_wait_seconds", "How long the job at the head of a queue has waited; 0 while none waits.", "class")
)

// What workspaces are filled with.
var (
	steps = Define(Counter, "initializer_steps_total",
		"Steps that filled a workspace, restores of its own backup included, by where content came from, with what result (success, failure, cancelled) "+
			"and why they failed: a reason that conditions have, too.",
		"source", "result", "reason")
	stepDuration = Define(Histogram, "initializer_step_duration_seconds", "How long these steps took.", "source", "result").
			with(.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
	stepBytes = Define(Counter, "initializer_bytes_total", "Bytes of files that these steps made, without what git keeps for itself.", "source")
	stepFiles = Define(Counter, "initializer_files_total", "Files that these steps made.", "source")
)

// What is asked of the store.
var (
	storeRequests = Define(Counter, "store_requests_total",
		"Requests to the object store, every attempt counted, by result: ok, absent, exists, damaged, refused, busy, timeout, cancelled or error.", "request", "result")
	storeDuration = Define(Histogram, "store_request_duration_seconds", "How long requests to the object store took, every attempt by itself.", "request").
			with(.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300)
	storeRetries     = Define(Counter, "store_retries_total", "Requests to the object store that were made again after a failure that may pass; absent before the first.", "request")
	storeSent        = Define(Counter, "store_sent_bytes_total", "Bytes of objects that were written, every attempt counted.")
	storeReceived    = Define(Counter, "store_received_bytes_total", "Bytes of objects that were read.")
	storeFit         = Define(Gauge, "store_fit", "Whether a probe found that the object store does what backups rely on: 1 if so, 0 if not or not known yet.")
	storeUp          = Define(Gauge, "store_up", "Whether the object store answered the last request that it should have; 1 until one is made.")
	storeLastSuccess = Define(Gauge, "store_last_success_timestamp_seconds", "When the object store answered last; absent before the first answer.")
)

// What lies on the node.
var (
	journalEntries = Define(Gauge, "journal_entries", "Volumes that the journal knows.")
	classUsed      = Define(Gauge, "volume_class_used_bytes", "What the content of its volumes took when it was last measured.", "class")
	classVolumes   = Define(Gauge, "volumes", "Volumes of a class.", "class")
	classFullest   = Define(Gauge, "volume_fullest_ratio", "How full the fullest limited volume of a class is, from 0 to 1; absent without one.", "class")
	classEscaped   = Define(Gauge, "volumes_escaped", "Volumes whose limit does not bind all of their content.", "class")
)

// What is known of workspaces.
var (
	workspaces = Define(Gauge, "workspaces", "Workspaces that name this node, by the state that they shall have.", "state")
	conditions = Define(Gauge, "workspace_conditions", "Workspaces that name this node, by type, status and reason of their conditions.",
		"condition", "status", "reason")
	unsaved = Define(Gauge, "oldest_unsaved_change_timestamp_seconds",
		"Since when changes may be in no backup: the oldest last look at content that periodic backups are to save; absent without any.")
)

// What is asked of the service.
var (
	serviceCalls = Define(Counter, "service_calls_total", "Calls of the service that ended, by method and by the code of their result (OK, NotFound and so on).",
		"method", "code")
	serviceDuration = Define(Histogram, "service_call_duration_seconds", "How long calls of the service took, until their last message was sent.", "method").
			with(.001, .01, .1, .5, 1, 5, 30, 60, 300, 1800, 3600, 21600)
	serviceRefused = Define(Counter, "service_handshakes_refused_total",
		"Callers from the network that could not show that they may call at all: without TLS, or without a certificate that is valid here.")
	servicePanics = Define(Counter, "service_panics_total", "Calls of the service that ran into a mistake in the daemon.")
	serviceBegin  = Define(Gauge, "service_certificate_begin_timestamp_seconds",
		"Since when a certificate of the service is valid: that of the daemon, or of the authority of callers that ends last; absent without one.", "certificate")
	serviceEnd = Define(Gauge, "service_certificate_end_timestamp_seconds", "When these certificates end; absent without one.", "certificate")
)

// What the daemon is.
var (
	buildInfo    = Define(Gauge, "build_info", "Always 1; the labels say what runs.", "version", "goversion")
	configUp     = Define(Gauge, "config_last_reload_successful", "Whether the configuration file was valid when it was last looked at.")
	configTime   = Define(Gauge, "config_last_reload_success_timestamp_seconds", "When a valid configuration was read last.")
	configReload = Define(Counter, "config_reloads_total", "Changes of the configuration file, by result: applied, unchanged or invalid; absent before the first.", "result")
	configWaits  = Define(Gauge, "config_pending_keys", "Keys of the configuration file that wait for a restart.")
)

// Definitions returns the metrics of this package, in the order in which they are documented.
func Definitions() []Definition {
	return []Definition{
		operations, operationDuration, operationBytes, operationFiles, jobsNow, jobLimit, jobWait, jobOldest,
		steps, stepDuration, stepBytes, stepFiles,
		storeRequests, storeDuration, storeRetries, storeSent, storeReceived, storeFit, storeUp, storeLastSuccess,
		journalEntries, classUsed, classVolumes, classFullest, classEscaped,
		workspaces, conditions, unsaved,
		serviceCalls, serviceDuration, serviceRefused, servicePanics, serviceBegin, serviceEnd,
		buildInfo, configUp, configTime, configReload, configWaits,
	}
}
