package fleet

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// What there is in a whole cluster.
var (
	fleetLeader     = metrics.Define(metrics.Gauge, "fleet_leader", "Whether this replica of the cluster controller leads: 1 or 0. Only the leader has the other metrics of the fleet.")
	fleetWorkspaces = metrics.Define(metrics.Gauge, "fleet_workspaces",
		"Workspaces of the cluster, by the state that they shall have (Running, Stopped or Deleting) and the reason of their condition Ready.", "state", "reason")
	fleetGone = metrics.Define(metrics.Gauge, "fleet_node_gone",
		"Workspaces whose node is not in the cluster, by the reason of their condition NodeGone, and whether they are being deleted.", "reason", "deleting")
	fleetSnapshots = metrics.Define(metrics.Gauge, "fleet_snapshots", "Snapshots of the cluster, by the status of their condition Ready.", "ready")
	fleetNodes     = metrics.Define(metrics.Gauge, "fleet_nodes", "Nodes whose daemons have reported, by the status of their condition Ready; Unknown where the node itself is not ready.", "ready")
	fleetSize      = metrics.Define(metrics.Gauge, "fleet_class_size_bytes", "What the disks of a volume class have together.", "class")
	fleetFree      = metrics.Define(metrics.Gauge, "fleet_class_free_bytes", "What of that is free, the reserves subtracted.", "class")
	fleetAllocated = metrics.Define(metrics.Gauge, "fleet_class_allocated_bytes", "The sizes of all volumes of a class together.", "class")
	fleetVolumes   = metrics.Define(metrics.Gauge, "fleet_volumes", "Volumes of a class on all nodes.", "class")
	fleetTended    = metrics.Define(metrics.Gauge, "fleet_store_tended_timestamp_seconds", "When the store was last tended without a failure; absent before.")
	fleetPacks     = metrics.Define(metrics.Gauge, "fleet_store_packs", "Packs in the store when they were last counted, once a day; absent before.")
	fleetBytes     = metrics.Define(metrics.Gauge, "fleet_store_bytes", "Bytes of these packs.")
	fleetIdle      = metrics.Define(metrics.Gauge, "fleet_store_idle_bytes", "Bytes of those packs that nothing needs.")
	fleetMissing   = metrics.Define(metrics.Gauge, "fleet_store_missing_packs", "Packs that backups need and that were not in the store.")
)

// MetricDefinitions are the metrics of this package, in the order in which they are documented.
func MetricDefinitions() []metrics.Definition {
	return []metrics.Definition{
		fleetLeader, fleetWorkspaces, fleetGone, fleetSnapshots, fleetNodes, fleetSize, fleetFree, fleetAllocated, fleetVolumes,
		fleetTended, fleetPacks, fleetBytes, fleetIdle, fleetMissing,
	}
}

// scrapeTimeout is how long the caches may take to answer.
const scrapeTimeout = 5 * time.Second

// Totals are what the leader knows of the whole cluster. They are computed at a scrape, from its caches.
type Totals struct {
	// Reader reads from the caches.
	Reader client.Reader
	// Elected is closed when this replica leads.
	Elected <-chan struct{}

	mu      sync.Mutex
	tended  time.Time // when the last round ended well
	counted *Tended   // the last one in which packs were counted
}

// Tended notes how a round ended.
func (t *Totals) Tended(round Tended, err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.tended = now
	}
	if round.Counted || round.Missing > 0 {
		t.counted = &round
	}
}

// Describe names what there may be.
func (t *Totals) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range MetricDefinitions() {
		descs <- d.Desc()
	}
}

// Collect looks.
func (t *Totals) Collect(out chan<- prometheus.Metric) {
	select {
	case <-t.Elected:
		gauge(out, fleetLeader, 1)
	default:
		gauge(out, fleetLeader, 0)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	t.objects(ctx, out)
	t.nodes(ctx, out)
	t.store(out)
}

func gauge(out chan<- prometheus.Metric, d metrics.Definition, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d.Desc(), prometheus.GaugeValue, value, labels...)
}

// objects counts workspaces and snapshots. What cannot be listed is left out: no number is better than a wrong one.
func (t *Totals) objects(ctx context.Context, out chan<- prometheus.Metric) {
	var all v1.WorkspaceList
	if t.Reader.List(ctx, &all) == nil {
		states, lost := map[[2]string]int{}, map[[2]string]int{}
		for i := range all.Items {
			ws := &all.Items[i]
			state, deleting := stateOf(ws), !ws.DeletionTimestamp.IsZero()
			states[[2]string{state, reasonOf(ws)}]++
			if c := gone(ws.Status.Conditions); c != nil {
				lost[[2]string{c.Reason, strconv.FormatBool(deleting)}]++
			}
		}
		pairs(out, fleetWorkspaces, states)
		pairs(out, fleetGone, lost)
	}
	var snapshots v1.SnapshotList
	if t.Reader.List(ctx, &snapshots) == nil {
		ready := map[string]int{}
		for i := range snapshots.Items {
			ready[readiness(snapshots.Items[i].Status.Conditions)]++
		}
		singles(out, fleetSnapshots, ready)
	}
}

func pairs(out chan<- prometheus.Metric, d metrics.Definition, counts map[[2]string]int) {
	for labels, n := range counts {
		gauge(out, d, float64(n), labels[:]...)
	}
}

func singles(out chan<- prometheus.Metric, d metrics.Definition, counts map[string]int) {
	for label, n := range counts {
		gauge(out, d, float64(n), label)
	}
}

func stateOf(ws *v1.Workspace) string {
	if !ws.DeletionTimestamp.IsZero() {
		return "Deleting"
	}
	return string(ws.Spec.State)
}

func reasonOf(ws *v1.Workspace) string {
	if c := apimeta.FindStatusCondition(ws.Status.Conditions, v1.ConditionReady); c != nil {
		return c.Reason
	}
	return v1.ReasonPending
}

func readiness(conditions []metav1.Condition) string {
	if c := apimeta.FindStatusCondition(conditions, v1.ConditionReady); c != nil {
		return string(c.Status)
	}
	return string(metav1.ConditionUnknown)
}

// room is what a volume class has on all nodes together.
type room struct{ size, free, allocated, volumes float64 }

func (t *Totals) nodes(ctx context.Context, out chan<- prometheus.Metric) {
	var all v1.WorkspaceNodeList
	alive, err := t.alive(ctx)
	if err != nil || t.Reader.List(ctx, &all) != nil {
		return
	}
	ready, classes := map[string]int{}, map[string]room{}
	for i := range all.Items {
		status := string(metav1.ConditionUnknown)
		if alive[all.Items[i].Name] {
			status = readiness(all.Items[i].Status.Conditions)
		}
		ready[status]++
		for _, c := range all.Items[i].Status.Classes {
			r := classes[c.Name]
			classes[c.Name] = room{r.size + bytesOf(c.Size), r.free + bytesOf(c.Free), r.allocated + bytesOf(c.Allocated), r.volumes + float64(c.Volumes)}
		}
	}
	singles(out, fleetNodes, ready)
	for name, r := range classes {
		gauge(out, fleetSize, r.size, name)
		gauge(out, fleetFree, r.free, name)
		gauge(out, fleetAllocated, r.allocated, name)
		gauge(out, fleetVolumes, r.volumes, name)
	}
}

// alive are the nodes that are ready: what the daemon of another one has reported last it may not be able to do any more.
func (t *Totals) alive(ctx context.Context) (map[string]bool, error) {
	var nodes corev1.NodeList
	if err := t.Reader.List(ctx, &nodes); err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for i := range nodes.Items {
		alive[nodes.Items[i].Name] = up(&nodes.Items[i])
	}
	return alive, nil
}

func bytesOf(q *resource.Quantity) float64 {
	if q == nil {
		return 0
	}
	return q.AsApproximateFloat64()
}

func (t *Totals) store(out chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.tended.IsZero() {
		gauge(out, fleetTended, float64(t.tended.Unix()))
	}
	if c := t.counted; c != nil {
		gauge(out, fleetPacks, float64(c.Packs))
		gauge(out, fleetBytes, float64(c.Bytes))
		gauge(out, fleetIdle, float64(c.IdleBytes))
		gauge(out, fleetMissing, float64(c.Missing))
	}
}
