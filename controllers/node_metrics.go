package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Metrics of a node and its disks, for the registry that the daemon serves. They are those of the last look: collecting them asks
// no disk.
type Metrics struct {
	workspaces *WorkspaceReconciler
}

// NewMetrics returns the metrics of the node whose workspaces are given.
func NewMetrics(w *WorkspaceReconciler) Metrics { return Metrics{w} }

// areaDisk is the value of the label disk for the working area. No class can be named like that.
const areaDisk = "(working area)"

var (
	diskUsable     = metrics.Define(metrics.Gauge, "disk_usable", "Whether the disk of a volume class, or of the working area, can be used.", "disk")
	diskSize       = metrics.Define(metrics.Gauge, "disk_size_bytes", "Size of the disk, or of the thin pool.", "disk")
	diskFree       = metrics.Define(metrics.Gauge, "disk_free_bytes", "Bytes that can still be written, the reserve included.", "disk")
	diskInodes     = metrics.Define(metrics.Gauge, "disk_inodes", "Inodes that the disk has, where it counts them.", "disk")
	diskFreeInodes = metrics.Define(metrics.Gauge, "disk_free_inodes", "Inodes that are left.", "disk")
	diskAllocated  = metrics.Define(metrics.Gauge, "disk_allocated_bytes", "Sum of the sizes of all volumes.", "disk")
	diskThinFill   = metrics.Define(metrics.Gauge, "disk_thin_used_ratio", "How full a thin pool's data or metadata are; absent without a pool.", "disk", "of")
	diskPressure   = metrics.Define(metrics.Gauge, "disk_pressure", "Whether the disk has too little of a resource, so that it takes no new workspaces.", "disk", "resource")
	safeToRemove   = metrics.Define(metrics.Gauge, "node_safe_to_remove", "Whether everything on the node is backed up or released, and nobody can change any of it.")
	orphanCount    = metrics.Define(metrics.Gauge, "orphans", "Volumes whose objects are missing.")
	orphansGone    = metrics.Define(metrics.Counter, "orphans_removed_total", "Volumes without an object that were let go since the start of the daemon.")
	evictedCaches  = metrics.Define(metrics.Counter, "caches_evicted_total", "Caches that went because their room was needed, since the start of the daemon.", "disk")
)

// MetricDefinitions are those of a node and its disks.
func MetricDefinitions() []metrics.Definition {
	return []metrics.Definition{
		diskUsable, diskSize, diskFree, diskInodes, diskFreeInodes, diskAllocated, diskThinFill, diskPressure,
		safeToRemove, orphanCount, orphansGone, evictedCaches,
	}
}

// Describe tells which metrics there are.
func (m Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range MetricDefinitions() {
		to <- d.Desc()
	}
}

// Collect sends what was found last; of the disks nothing before the first look.
func (m Metrics) Collect(to chan<- prometheus.Metric) {
	w := m.workspaces
	missing, gone := w.orphans.counts(w.Keeper.Area.Journal().List())
	send(to, orphanCount, float64(missing))
	count(to, orphansGone, gone)
	for class, n := range w.evictions.counts(w.Keeper.Volumes) {
		count(to, evictedCaches, n, class)
	}
	disks, known := w.guard.last()
	if !known {
		return
	}
	send(to, safeToRemove, truth(w.guard.isSafe()))
	collectDisk(to, areaDisk, disks.area)
	for class, d := range disks.classes {
		collectDisk(to, class, d)
		if d.err == nil {
			send(to, diskAllocated, float64(d.Allocated), class)
		}
	}
}

func collectDisk(to chan<- prometheus.Metric, name string, d disk) {
	send(to, diskUsable, truth(d.err == nil), name)
	for _, r := range []v1.Resource{v1.ResourceBytes, v1.ResourceInodes, v1.ResourceThinData, v1.ResourceThinMetadata} {
		send(to, diskPressure, truth(d.isShort(r)), name, string(r))
	}
	if d.err != nil {
		return
	}
	collectRoom(to, name, d.Room)
	if d.Thin != nil {
		send(to, diskThinFill, d.Thin.Data/100, name, "data")
		send(to, diskThinFill, d.Thin.Metadata/100, name, "metadata")
	}
}

func collectRoom(to chan<- prometheus.Metric, name string, r volume.Room) {
	send(to, diskSize, float64(r.Size), name)
	send(to, diskFree, float64(r.Free), name)
	if r.Inodes > 0 {
		send(to, diskInodes, float64(r.Inodes), name)
		send(to, diskFreeInodes, float64(r.FreeInodes), name)
	}
}

func send(to chan<- prometheus.Metric, d metrics.Definition, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d.Desc(), prometheus.GaugeValue, value, labels...)
}

func count(to chan<- prometheus.Metric, d metrics.Definition, n int, labels ...string) {
	to <- prometheus.MustNewConstMetric(d.Desc(), prometheus.CounterValue, float64(n), labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
