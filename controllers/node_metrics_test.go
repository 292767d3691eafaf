package controllers

import (
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// gathered returns all metrics of a daemon as lines of text.
func (w *world) gathered() []string {
	w.Helper()
	registry := prometheus.NewRegistry()
	w.Expect(registry.Register(NewMetrics(w.workspaces))).To(Succeed())
	families, err := registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += "," + l.GetName() + "=" + l.GetValue()
			}
			lines = append(lines, fmt.Sprintf("%s%s %g", f.GetName(), labels, m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	return lines
}

func TestMetricsOfTheNode(t *testing.T) {
	w, disk := scarceWorld(t)
	w.start()
	w.pressure("False/EnoughRoom")
	disk.set(88, 2, nil)
	w.pressure("True/Bytes")
	w.Eventually(func() []string { w.workspaces.JobEnded(jobs.Key{}); return w.gathered() }).Should(ContainElements(
		"ws_daemon_caches_evicted_total,disk=default 2",
		"ws_daemon_disk_usable,disk=default 1", "ws_daemon_disk_usable,disk=(working area) 1",
		fmt.Sprintf("ws_daemon_disk_size_bytes,disk=default %g", float64(100<<30)),
		fmt.Sprintf("ws_daemon_disk_free_bytes,disk=default %g", float64(12<<30)),
		"ws_daemon_disk_inodes,disk=default 1e+06", "ws_daemon_disk_free_inodes,disk=default 900000",
		"ws_daemon_disk_allocated_bytes,disk=default 0",
		"ws_daemon_disk_pressure,disk=default,resource=Bytes 1", "ws_daemon_disk_pressure,disk=default,resource=Inodes 0",
		"ws_daemon_disk_pressure,disk=(working area),resource=Bytes 0",
		"ws_daemon_node_safe_to_remove 1", "ws_daemon_orphans 0", "ws_daemon_orphans_removed_total 0",
	))
	disk.set(0, 0, errors.New("it burns"))
	w.Eventually(func() []string { w.workspaces.JobEnded(jobs.Key{}); return w.gathered() }).Should(And(
		ContainElements("ws_daemon_disk_usable,disk=default 0", "ws_daemon_disk_pressure,disk=default,resource=Bytes 1", "ws_daemon_node_safe_to_remove 0"),
		Not(ContainElement(HavePrefix("ws_daemon_disk_size_bytes,disk=default")))))
}

func TestMetricsBeforeTheFirstLookAndOfPools(t *testing.T) {
	w := newWorld(t)
	w.workspaces = &WorkspaceReconciler{Keeper: w.keeper()}
	w.Expect(w.gathered()).To(Equal([]string{"ws_daemon_caches_evicted_total,disk=default 0", "ws_daemon_orphans 0", "ws_daemon_orphans_removed_total 0"}))
	w.workspaces.guard.set(disks{classes: map[string]disk{"pool": {
		Capacity: volume.Capacity{Thin: &volume.Fill{Data: 50, Metadata: 12.5}}, short: []v1.Resource{v1.ResourceThinData},
	}}})
	w.Expect(w.gathered()).To(ContainElements(
		"ws_daemon_disk_thin_used_ratio,disk=pool,of=data 0.5", "ws_daemon_disk_thin_used_ratio,disk=pool,of=metadata 0.125",
		"ws_daemon_disk_pressure,disk=pool,resource=ThinData 1"))
}
