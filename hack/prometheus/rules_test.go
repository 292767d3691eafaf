package prometheus

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/tools"
	"wsdaemon.dev/ws-daemon/internal/cmd"
	"wsdaemon.dev/ws-daemon/internal/metrics"
)

const (
	rulesFile     = "../../config/prometheus/rules.yaml"
	dashboardFile = "../../config/prometheus/dashboard.json"
)

func readRules(t *testing.T) Rules {
	t.Helper()
	r, err := ReadRules(rulesFile)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return r
}

// promtool runs Prometheus's tool and returns what it printed.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := tools.Tool{
		Name: "promtool", In: "prometheus", Module: "github.com/prometheus/prometheus", Package: "github.com/prometheus/prometheus/cmd/promtool",
	}.Build(t.Context(), t.Output())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	return string(out), err
}

// writeRules writes the rules as Prometheus reads them.
func writeRules(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "rules.yaml")
	NewWithT(t).Expect(os.WriteFile(file, readRules(t).Text, 0o600)).To(Succeed())
	return file
}

func TestRulesAreValid(t *testing.T) {
	out, err := promtool(t, "check", "rules", "--lint=all", "--lint-fatal", writeRules(t, t.TempDir()))
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Expect(out).To(ContainSubstring(fmt.Sprintf("SUCCESS: %d rules found", len(alerts()))))
}

// alert is what makes one alert fire, and what does not.
type alert struct {
	fires, quiet []string
	at           string // when it fires, at the latest
}

// alerts has series for every alert, as promtool writes them: name, labels, values by the minute.
func alerts() map[string]alert {
	one := func(series string) []string { return []string{series} }
	const forever = "x180"
	constant := func(name, labels string, fires, quiet float64, at string) alert {
		series := func(v float64) []string { return one(fmt.Sprintf("%s{node=\"a\"%s} %v+0%s", name, labels, v, forever)) }
		return alert{fires: series(fires), quiet: series(quiet), at: at}
	}
	const class, disk, area = `,class="default"`, `,disk="default"`, `,disk="(working area)"`
	free := func(labels string, percent int) string {
		return fmt.Sprintf("ws_daemon_disk_free_bytes{node=\"a\"%s} %d+0%s", labels, percent, forever)
	}
	size := func(labels string) string {
		return fmt.Sprintf("ws_daemon_disk_size_bytes{node=\"a\"%s} 100+0%s", labels, forever)
	}
	// certificate is valid from and until so many seconds after time 0.
	certificate := func(of string, begin, end int) []string {
		return []string{
			fmt.Sprintf(`ws_daemon_service_certificate_begin_timestamp_seconds{node="a",certificate=%q} %d+0%s`, of, begin, forever),
			fmt.Sprintf(`ws_daemon_service_certificate_end_timestamp_seconds{node="a",certificate=%q} %d+0%s`, of, end, forever),
		}
	}
	const hour = 3600
	return map[string]alert{
		"WSDaemonDown":           constant("up", `,job="ws-daemon-system/ws-daemon"`, 0, 1, "15m"),
		"WSDaemonUnsavedChanges": {one(`ws_daemon_oldest_unsaved_change_timestamp_seconds{node="a"} 0+0x180`), one(`ws_daemon_oldest_unsaved_change_timestamp_seconds{node="a"} 0+60x180`), "75m"},
		"WSDaemonNodeGone":       constant("ws_daemon_fleet_node_gone", `,reason="NodeDeleted",deleting="false"`, 2, 0, "20m"),
		"WSDaemonControllerDown": {
			one(`up{node="a",job="ws-daemon-system/ws-daemon",pod="ws-daemon-controller-x"} 0+0x180`),
			[]string{`up{node="a",job="ws-daemon-system/ws-daemon",pod="ws-daemon-controller-x"} 0+0x180`, `up{node="b",job="ws-daemon-system/ws-daemon",pod="ws-daemon-controller-x"} 1+0x180`}, "20m",
		},
		"WSDaemonPacksMissing": constant("ws_daemon_fleet_store_missing_packs", "", 1, 0, "10m"),
		"WSDaemonStoreNotTended": {
			one(`ws_daemon_fleet_store_tended_timestamp_seconds{node="a"} 0+0x360`), one(`ws_daemon_fleet_store_tended_timestamp_seconds{node="a"} 0+60x360`), "260m",
		},
		"WSDaemonBackupsFail": {
			one(`ws_daemon_operations_total{node="a",operation="Backup",result="failure",reason="StoreUnavailable"} 0+1x180`),
			[]string{
				`ws_daemon_operations_total{node="a",operation="Backup",result="success",reason=""} 0+1x180`,
				`ws_daemon_operations_total{node="a",operation="Backup",result="failure",reason="Incomplete"} 0 1 2+0x180`,
			}, "40m",
		},
		"WSDaemonStartsFail": {
			[]string{
				`ws_daemon_operations_total{node="a",operation="Restore",result="failure",reason="RestoreFailed"} 0+1x180`,
				`ws_daemon_operations_total{node="a",operation="Initialize",result="success",reason=""} 0+2x180`,
			},
			[]string{
				`ws_daemon_operations_total{node="a",operation="Restore",result="failure",reason="RestoreFailed"} 0+1x180`,
				`ws_daemon_operations_total{node="a",operation="Initialize",result="success",reason=""} 0+9x180`,
			}, "40m",
		},
		"WSDaemonWorkspacesStalled": constant("ws_daemon_workspace_conditions", `,condition="Stalled",status="True",reason="NoBackup"`, 2, 0, "20m"),
		"WSDaemonQueueLong":         constant("ws_daemon_job_oldest_wait_seconds", class, 2000, 100, "15m"),
		"WSDaemonStoreUnreachable":  constant("ws_daemon_store_up", "", 0, 1, "15m"),
		"WSDaemonStoreUnfit":        constant("ws_daemon_store_fit", "", 0, 1, "20m"),
		"WSDaemonStoreSlow": {
			[]string{
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="30"} 0+1x180`,
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="60"} 0+2x180`,
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="+Inf"} 0+2x180`,
			},
			[]string{
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="30"} 0+99x180`,
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="60"} 0+100x180`,
				`ws_daemon_store_request_duration_seconds_bucket{node="a",request="put",le="+Inf"} 0+100x180`,
			}, "40m",
		},
		"WSDaemonAreaMissing": constant("ws_daemon_disk_usable", area, 0, 1, "10m"),
		"WSDaemonAreaFull": {
			[]string{free(area, 4), size(area)},
			[]string{free(area, 6), size(area)}, "15m",
		},
		"WSDaemonVolumeClassDown": constant("ws_daemon_disk_usable", disk, 0, 1, "10m"),
		"WSDaemonDiskFull": {
			[]string{free(disk, 14), size(disk)},
			[]string{free(disk, 16), size(disk)}, "15m",
		},
		"WSDaemonPoolDataFull":     constant("ws_daemon_disk_thin_used_ratio", disk+`,of="data"`, 0.86, 0.84, "10m"),
		"WSDaemonPoolMetadataFull": constant("ws_daemon_disk_thin_used_ratio", disk+`,of="metadata"`, 0.81, 0.79, "10m"),
		"WSDaemonQuotaEscaped":     constant("ws_daemon_volumes_escaped", class, 1, 0, "20m"),
		"WSDaemonConfigInvalid":    constant("ws_daemon_config_last_reload_successful", "", 0, 1, "10m"),
		// One of a day is renewed in its last eight hours, one of years in its last month.
		"WSDaemonCertificateEnds": {
			certificate("daemon", -20*hour, 4*hour),
			append(certificate("daemon", -16*hour, 8*hour), certificate("callers", -700*24*hour, 30*24*hour)...), "15m",
		},
		"WSDaemonConfigPending": constant("ws_daemon_config_pending_keys", "", 1, 0, "65m"),
	}
}

// Each alert fires when it should, alone, and does not when it should not.
func TestAlertsFire(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	var tests []map[string]any
	for name, a := range alerts() {
		fired := []map[string]any{{"labels": fmt.Sprintf("{alertname=%q}", name), "value": 1}}
		tests = append(tests, unit(a.fires, a.at, fired), unit(a.quiet, "150m", nil))
	}
	text, err := yaml.Marshal(map[string]any{"rule_files": []string{writeRules(t, dir)}, "evaluation_interval": "1m", "tests": tests})
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(dir, "test.yaml")
	g.Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	out, err := promtool(t, "test", "rules", file)
	g.Expect(err).NotTo(HaveOccurred(), out)
}

func unit(series []string, at string, fired []map[string]any) map[string]any {
	input := make([]map[string]any, 0, len(series))
	for _, s := range series {
		name, values, _ := strings.Cut(s, "} ")
		input = append(input, map[string]any{"series": name + "}", "values": values})
	}
	return map[string]any{
		"interval": "1m", "input_series": input,
		"promql_expr_test": []map[string]any{{
			"expr": `count by (alertname) (ALERTS{alertstate="firing"})`, "eval_time": at, "exp_samples": fired,
		}},
	}
}

// The whole directory is what kubectl takes.
func TestDirectoryIsComplete(t *testing.T) {
	g := NewWithT(t)
	programs, err := cluster.FindTools(t.Context(), t.Output(), cluster.Kubectl)
	g.Expect(err).NotTo(HaveOccurred())
	out, err := exec.CommandContext(t.Context(), programs[cluster.Kubectl], "kustomize", "../../config/prometheus").CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	var kinds []string
	for text := range strings.SplitSeq(string(out), "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		g.Expect(yaml.Unmarshal([]byte(text), &object)).To(Succeed())
		kinds = append(kinds, strings.TrimPrefix(object.Metadata.Namespace+"/", "/")+object.Kind+"/"+object.Metadata.Name)
	}
	g.Expect(kinds).To(ConsistOf(
		"ws-daemon-system/ServiceAccount/ws-daemon-scrape", "ws-daemon-system/Secret/ws-daemon-scrape", "ClusterRoleBinding/ws-daemon-scrape",
		"ws-daemon-system/ConfigMap/ws-daemon-dashboard", "ws-daemon-system/PodMonitor/ws-daemon", "ws-daemon-system/PrometheusRule/ws-daemon",
	))
}

// Nobody is left alone with an alert.
func TestEveryAlertIsTestedAndHasARunbook(t *testing.T) {
	g := NewWithT(t)
	document, err := os.ReadFile("../../docs/operations.md")
	g.Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, r := range readRules(t).Alerts {
		names = append(names, r.Alert)
		g.Expect(r.Annotations["runbook_url"]).To(Equal("docs/operations.md#" + strings.ToLower(r.Alert)))
		g.Expect(string(document)).To(ContainSubstring("\n### " + r.Alert + "\n\n"))
		g.Expect(r.Labels["severity"]).To(BeElementOf("critical", "warning", "info"))
		g.Expect(r.Annotations["summary"]).To(HaveSuffix("."))
		if ofTheCluster := strings.Contains(r.Expr, "ws_daemon_fleet_") || strings.Contains(r.Expr, "max by (job)"); !ofTheCluster {
			g.Expect(r.Annotations["summary"]).To(ContainSubstring("$labels.node"))
		}
		g.Expect(r.Annotations["description"]).To(HaveSuffix("."))
		g.Expect(r.For).NotTo(BeEmpty(), "one scrape is no reason to wake somebody")
	}
	tested := make([]string, 0, len(alerts()))
	for name := range alerts() {
		tested = append(tested, name)
	}
	g.Expect(names).To(ConsistOf(tested))
}

// What the documents call an alert is one.
func TestDocumentsNameAlertsThatExist(t *testing.T) {
	g := NewWithT(t)
	var known []string
	for _, r := range readRules(t).Alerts {
		known = append(known, r.Alert)
	}
	files, err := filepath.Glob("../../docs/*.md")
	g.Expect(err).NotTo(HaveOccurred())
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		for _, name := range regexp.MustCompile(`\bWSDaemon[A-Z]\w*`).FindAllString(string(text), -1) {
			g.Expect(known).To(ContainElement(name), file)
			seen++
		}
	}
	g.Expect(seen).To(BeNumerically(">", len(known)), "each has a runbook, and some are named elsewhere")
}

func queries(t *testing.T) []Query {
	t.Helper()
	g := NewWithT(t)
	all, err := ReadQueries(dashboardFile)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(all).NotTo(BeEmpty())
	return all
}

func TestDashboardQueriesAreValid(t *testing.T) {
	for _, q := range queries(t) {
		g := NewWithT(t)
		g.Expect(q.Expr).NotTo(ContainSubstring("$"), "a variable of %s", q.Panel)
		out, err := promtool(t, "--experimental", "promql", "format", q.Expr)
		g.Expect(err).NotTo(HaveOccurred(), "%s: %s: %s", q.Panel, q.Expr, out)
	}
}

var (
	selector = regexp.MustCompile(`\b(ws_daemon_[a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// exported are the names of all series, and their labels.
func exported() map[string][]string {
	out := map[string][]string{}
	for _, d := range cmd.MetricDefinitions() {
		if d.Type != metrics.Histogram {
			out[d.Name] = d.Labels
			continue
		}
		out[d.Name+"_bucket"] = append(slices.Clone(d.Labels), "le")
		out[d.Name+"_sum"], out[d.Name+"_count"] = d.Labels, d.Labels
	}
	return out
}

// What alerts and dashboard ask for is what the daemon has, by name and label.
func TestEveryQueryAsksForWhatThereIs(t *testing.T) {
	all := queries(t)
	for _, r := range readRules(t).Alerts {
		all = append(all, Query{r.Alert, r.Expr})
	}
	there := exported()
	for _, q := range all {
		g := NewWithT(t)
		for _, name := range metricName.FindAllString(q.Expr, -1) {
			g.Expect(there).To(HaveKey(name), "%s: %s", q.Panel, q.Expr)
		}
		for _, found := range selector.FindAllStringSubmatch(q.Expr, -1) {
			for _, m := range matcher.FindAllStringSubmatch(found[2], -1) {
				g.Expect(append([]string{"node"}, there[found[1]]...)).To(ContainElement(m[1]), "%s: %s", q.Panel, q.Expr)
			}
		}
	}
}

// Whatever is measured is shown to somebody.
func TestDashboardShowsEveryMetric(t *testing.T) {
	var shown strings.Builder
	for _, q := range queries(t) {
		shown.WriteString(q.Expr + "\n")
	}
	for _, d := range cmd.MetricDefinitions() {
		if d.Name != "ws_daemon_config_last_reload_success_timestamp_seconds" { // a date, for whoever looks for one
			NewWithT(t).Expect(shown.String()).To(ContainSubstring(d.Name))
		}
	}
}
