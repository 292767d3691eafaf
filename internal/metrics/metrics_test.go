package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// full is a snapshot that has everything.
func full() metrics.Snapshot {
	now := time.Unix(10_000, 0)
	return metrics.Snapshot{
		Now:     now,
		Jobs:    map[jobs.Class]jobs.Load{"backup": {Limit: 2, Running: 2, Queued: 3, Oldest: now.Add(-time.Minute)}, "final": {Limit: 4}},
		Journal: 7,
		Classes: []metrics.Class{
			{Name: "default", Used: 60, Volumes: 3, Escaped: 1, Fullest: .9},
			{Name: "gone", Volumes: 1, Fullest: -1},
		},
		Workspaces: map[string]int{"Running": 3, "Stopped": 1},
		Conditions: map[metrics.Condition]int{{Type: "Ready", Status: "True", Reason: "Running"}: 3},
		Unsaved:    now.Add(-time.Hour),
		Config:     metrics.Config{Valid: true, Read: now.Add(-time.Minute), Pending: 2},
	}
}

// busy are the metrics of a daemon that has done everything once.
func busy(t *testing.T, source func() metrics.Snapshot) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	g := NewWithT(t)
	m, registry := metrics.New("v1.2.3", source), prometheus.NewRegistry()
	g.Expect(m.Register(registry)).To(Succeed())
	m.JobEnded(jobs.Key{UID: "u", Op: "Backup/7"}, jobs.State{
		Class: "backup", Queued: time.Unix(0, 0), Started: time.Unix(2, 0), Ended: time.Unix(5, 0), Progress: jobs.Progress{FilesDone: 3, BytesDone: 500},
	}, "")
	m.StepEnded(metrics.Step{Source: "Git", Files: 2, Bytes: 20, Duration: time.Second}, nil, "")
	m.Reloaded(metrics.ReloadApplied)
	m.ServiceCalled("Get", "OK", time.Second)
	m.ServiceCertificate(metrics.CertificateOwn, time.Unix(50, 0), time.Unix(100, 0))
	m.StoreFit()
	m.StoreRetried("put")
	s := m.Store(storetest.Filesystem(t))
	g.Expect(s.Put(t.Context(), "d/key", []byte("12345"))).To(Succeed())
	_, err := s.Get(t.Context(), "d/key", 100)
	g.Expect(err).NotTo(HaveOccurred())
	return m, registry
}

func TestMetricsPassTheLinter(t *testing.T) {
	g := NewWithT(t)
	_, registry := busy(t, full)
	problems, err := testutil.GatherAndLint(registry)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(problems).To(Equal([]promlint.Problem(nil)))
}

// What is documented is what there is.
func TestEveryDefinitionIsExportedAndNothingElse(t *testing.T) {
	g := NewWithT(t)
	_, registry := busy(t, full)
	families, err := registry.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	got := map[string]string{}
	for _, f := range families {
		labels := map[string]bool{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels[l.GetName()] = true
		}
		got[f.GetName()] = fmt.Sprint(strings.ToLower(f.GetType().String()), " ", f.GetHelp(), " ", labels)
	}
	want := map[string]string{}
	for _, d := range metrics.Definitions() {
		labels := map[string]bool{}
		for _, l := range d.Labels {
			labels[l] = true
		}
		want[d.Name] = fmt.Sprint(string(d.Type), " ", d.Help, " ", labels)
	}
	g.Expect(got).To(Equal(want))
}

func TestNoLabelNamesAWorkspace(t *testing.T) {
	for _, d := range metrics.Definitions() {
		for _, label := range d.Labels {
			NewWithT(t).Expect(label).To(BeElementOf(
				"operation", "source", "result", "reason", "class", "phase", "request", "driver", "state", "condition", "status", "version", "goversion", "method", "code", "certificate"), d.Name)
		}
	}
}

func expect(t *testing.T, registry prometheus.Gatherer, text string, names ...string) {
	t.Helper()
	NewWithT(t).Expect(testutil.GatherAndCompare(registry, strings.NewReader(text), names...)).To(Succeed())
}

func TestSnapshot(t *testing.T) {
	_, registry := busy(t, full)
	expect(t, registry, `
# HELP ws_daemon_jobs Jobs that run or wait now, by the class whose limit they share.
# TYPE ws_daemon_jobs gauge
ws_daemon_jobs{class="backup",phase="queued"} 3
ws_daemon_jobs{class="backup",phase="running"} 2
ws_daemon_jobs{class="final",phase="queued"} 0
ws_daemon_jobs{class="final",phase="running"} 0
# HELP ws_daemon_job_oldest_wait_seconds How long the job at the head of a queue has waited; 0 while none waits.
# TYPE ws_daemon_job_oldest_wait_seconds gauge
ws_daemon_job_oldest_wait_seconds{class="backup"} 60
ws_daemon_job_oldest_wait_seconds{class="final"} 0
# HELP ws_daemon_oldest_unsaved_change_timestamp_seconds Since when changes may be in no backup: the oldest last look at content that periodic backups are to save; absent without any.
# TYPE ws_daemon_oldest_unsaved_change_timestamp_seconds gauge
ws_daemon_oldest_unsaved_change_timestamp_seconds 6400
# HELP ws_daemon_volume_class_used_bytes What the content of its volumes took when it was last measured.
# TYPE ws_daemon_volume_class_used_bytes gauge
ws_daemon_volume_class_used_bytes{class="default"} 60
ws_daemon_volume_class_used_bytes{class="gone"} 0
# HELP ws_daemon_volume_fullest_ratio How full the fullest limited volume of a class is, from 0 to 1; absent without one.
# TYPE ws_daemon_volume_fullest_ratio gauge
ws_daemon_volume_fullest_ratio{class="default"} 0.9
# HELP ws_daemon_build_info Always 1; the labels say what runs.
# TYPE ws_daemon_build_info gauge
ws_daemon_build_info{goversion="`+runtime.Version()+`",version="v1.2.3"} 1
`, "ws_daemon_jobs", "ws_daemon_job_oldest_wait_seconds", "ws_daemon_oldest_unsaved_change_timestamp_seconds",
		"ws_daemon_volume_class_used_bytes", "ws_daemon_volume_fullest_ratio", "ws_daemon_build_info")
}

// Series go with what they are about.
func TestSeriesDisappearWithTheirSubject(t *testing.T) {
	g := NewWithT(t)
	now := full()
	_, registry := busy(t, func() metrics.Snapshot { return now })
	names := func() map[string]int {
		families, err := registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		out := map[string]int{}
		for _, f := range families {
			out[strings.TrimPrefix(f.GetName(), "ws_daemon_")] = len(f.GetMetric())
		}
		return out
	}
	g.Expect(names()).To(And(HaveKeyWithValue("volumes", 2), HaveKey("workspace_conditions"), HaveKey("oldest_unsaved_change_timestamp_seconds")))
	now.Classes, now.Conditions, now.Workspaces, now.Unsaved = now.Classes[1:], nil, nil, time.Time{}
	after := names()
	g.Expect(after).To(HaveKeyWithValue("volumes", 1))
	for _, gone := range []string{
		"workspace_conditions", "workspaces", "oldest_unsaved_change_timestamp_seconds", "volume_fullest_ratio",
	} {
		g.Expect(after).NotTo(HaveKey(gone))
	}
}

func TestOperations(t *testing.T) {
	m, registry := busy(t, full)
	end := func(op string, err error, reason string) {
		m.JobEnded(jobs.Key{UID: "u", Op: op}, jobs.State{Class: "backup", Started: time.Unix(1, 0), Ended: time.Unix(2, 0), Err: err}, reason)
	}
	end("Backup/8", nil, "whatever")
	end("Backup/9", errors.New("no route"), "StoreUnavailable")
	end("Restore/1", fmt.Errorf("%w: while reading", jobs.ErrCancelled), "Failed")
	m.JobEnded(jobs.Key{UID: "u", Op: "Remove/1"}, jobs.State{Class: "maintain", Err: jobs.ErrCancelled}, "Failed") // while it waited
	expect(t, registry, `
# HELP ws_daemon_operations_total Jobs that ended, by what they did, with what result (success, failure, cancelled) and why they failed: a reason that conditions have, too.
# TYPE ws_daemon_operations_total counter
ws_daemon_operations_total{operation="Backup",reason="",result="success"} 2
ws_daemon_operations_total{operation="Backup",reason="StoreUnavailable",result="failure"} 1
ws_daemon_operations_total{operation="Remove",reason="",result="cancelled"} 1
ws_daemon_operations_total{operation="Restore",reason="",result="cancelled"} 1
# HELP ws_daemon_operation_bytes_total Bytes of files that jobs worked on: read by backups, written by restores.
# TYPE ws_daemon_operation_bytes_total counter
ws_daemon_operation_bytes_total{operation="Backup"} 500
ws_daemon_operation_bytes_total{operation="Restore"} 0
`, "ws_daemon_operations_total", "ws_daemon_operation_bytes_total")
}

func TestSteps(t *testing.T) {
	m, registry := busy(t, full)
	m.StepEnded(metrics.Step{Source: "Git", Files: 1, Bytes: 7, Duration: 3 * time.Second}, nil, "whatever")
	m.StepEnded(metrics.Step{Source: "Git"}, errors.New("no"), "Unauthorized")
	m.StepEnded(metrics.Step{Source: "Download", Bytes: 5}, fmt.Errorf("stopped: %w", context.Canceled), "TimedOut")
	expect(t, registry, `
# HELP ws_daemon_initializer_steps_total Steps that filled a workspace, restores of its own backup included, by where content came from, with what result (success, failure, cancelled) and why they failed: a reason that conditions have, too.
# TYPE ws_daemon_initializer_steps_total counter
ws_daemon_initializer_steps_total{reason="",result="cancelled",source="Download"} 1
ws_daemon_initializer_steps_total{reason="",result="success",source="Git"} 2
ws_daemon_initializer_steps_total{reason="Unauthorized",result="failure",source="Git"} 1
# HELP ws_daemon_initializer_bytes_total Bytes of files that these steps made, without what git keeps for itself.
# TYPE ws_daemon_initializer_bytes_total counter
ws_daemon_initializer_bytes_total{source="Download"} 5
ws_daemon_initializer_bytes_total{source="Git"} 27
# HELP ws_daemon_initializer_files_total Files that these steps made.
# TYPE ws_daemon_initializer_files_total counter
ws_daemon_initializer_files_total{source="Download"} 0
ws_daemon_initializer_files_total{source="Git"} 3
`, "ws_daemon_initializer_steps_total", "ws_daemon_initializer_bytes_total", "ws_daemon_initializer_files_total")
}

func TestStoreRequests(t *testing.T) {
	g := NewWithT(t)
	m, registry := busy(t, full)
	var fail error
	s := m.Store(storetest.Faulty(storetest.Filesystem(t), func(string, string) error { return fail }))
	g.Expect(s.Put(t.Context(), "d/a", []byte("12"))).To(Succeed())
	g.Expect(s.Put(t.Context(), "d/a", []byte("12"))).To(MatchError(store.ErrExists))
	_, err := s.Stat(t.Context(), "d/b")
	g.Expect(err).To(MatchError(store.ErrNotFound))
	buf := make([]byte, 2)
	g.Expect(s.Read(t.Context(), "d/a", 0, buf)).To(Succeed())
	_, err = s.Get(t.Context(), "d/a", 1)
	g.Expect(err).To(MatchError(store.ErrTooLarge))
	_, err = s.List(t.Context(), "d/", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = s.Now(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(store.Sweep(t.Context(), s)).To(Succeed())
	since, _ := m.StoreOutage()
	g.Expect(since).To(BeZero(), "all of these are answers")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	fail = io.ErrUnexpectedEOF
	g.Expect(s.Delete(ended, "d/a")).NotTo(Succeed())
	since, _ = m.StoreOutage()
	g.Expect(since).To(BeZero(), "who gave up says nothing of the store")
	for _, fail = range []error{errors.New("first"), context.DeadlineExceeded, &store.BusyError{Err: io.EOF}, &store.RefusedError{Err: io.EOF}} {
		g.Expect(s.Delete(t.Context(), "d/a")).NotTo(Succeed())
	}
	since, err = m.StoreOutage()
	g.Expect(since).NotTo(BeZero())
	g.Expect(err).To(MatchError(ContainSubstring("first")), "it stays the same while the outage lasts")
	expect(t, registry, `
# HELP ws_daemon_store_requests_total Requests to the object store, every attempt counted, by result: ok, absent, exists, damaged, refused, busy, timeout, cancelled or error.
# TYPE ws_daemon_store_requests_total counter
ws_daemon_store_requests_total{request="clock",result="ok"} 1
ws_daemon_store_requests_total{request="delete",result="busy"} 1
ws_daemon_store_requests_total{request="delete",result="cancelled"} 1
ws_daemon_store_requests_total{request="delete",result="error"} 1
ws_daemon_store_requests_total{request="delete",result="refused"} 1
ws_daemon_store_requests_total{request="delete",result="timeout"} 1
ws_daemon_store_requests_total{request="get",result="damaged"} 1
ws_daemon_store_requests_total{request="get",result="ok"} 1
ws_daemon_store_requests_total{request="list",result="ok"} 1
ws_daemon_store_requests_total{request="put",result="exists"} 1
ws_daemon_store_requests_total{request="put",result="ok"} 2
ws_daemon_store_requests_total{request="read",result="ok"} 1
ws_daemon_store_requests_total{request="stat",result="absent"} 1
ws_daemon_store_requests_total{request="sweep",result="ok"} 1
# HELP ws_daemon_store_up Whether the object store answered the last request that it should have; 1 until one is made.
# TYPE ws_daemon_store_up gauge
ws_daemon_store_up 0
# HELP ws_daemon_store_sent_bytes_total Bytes of objects that were written, every attempt counted.
# TYPE ws_daemon_store_sent_bytes_total counter
ws_daemon_store_sent_bytes_total 9
# HELP ws_daemon_store_received_bytes_total Bytes of objects that were read.
# TYPE ws_daemon_store_received_bytes_total counter
ws_daemon_store_received_bytes_total 7
`, "ws_daemon_store_requests_total", "ws_daemon_store_up", "ws_daemon_store_sent_bytes_total", "ws_daemon_store_received_bytes_total")

	fail = nil
	_, err = s.Now(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	since, _ = m.StoreOutage()
	g.Expect(since).To(BeZero())
}

// A process that starts a second daemon, as tests do, measures that one.
func TestRegisterReplacesWhatWasThere(t *testing.T) {
	g := NewWithT(t)
	registry := prometheus.NewRegistry()
	g.Expect(metrics.New("old", full).Register(registry)).To(Succeed())
	g.Expect(metrics.New("new", full).Register(registry)).To(Succeed())
	expect(t, registry, `
# HELP ws_daemon_build_info Always 1; the labels say what runs.
# TYPE ws_daemon_build_info gauge
ws_daemon_build_info{goversion="`+runtime.Version()+`",version="new"} 1
`, "ws_daemon_build_info")
}
