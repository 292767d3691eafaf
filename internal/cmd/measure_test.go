package cmd

import (
	"regexp"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/metrics"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestOldestUnsavedChange(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	entry := func(uid string, checked int) state.Entry {
		e := state.Entry{UID: uid}
		if checked > 0 {
			e.Backup.CheckedAt = at(checked)
		}
		return e
	}
	released := entry("released", 1)
	released.Released = "fingerprint"
	workspace := func(uid string, conditions ...metav1.Condition) v1.Workspace {
		return v1.Workspace{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Status: v1.WorkspaceStatus{Conditions: conditions}}
	}
	filled := metav1.Condition{Type: v1.ConditionContentReady, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(at(3))}
	for name, tt := range map[string]struct {
		entries []state.Entry
		all     []v1.Workspace
		want    time.Time
	}{
		"nothing":                   {},
		"the oldest look":           {[]state.Entry{entry("a", 7), entry("b", 5)}, []v1.Workspace{workspace("a", filled), workspace("b", filled)}, at(5)},
		"no backup yet":             {[]state.Entry{entry("a", 0)}, []v1.Workspace{workspace("a", filled)}, at(3)},
		"no content yet":            {[]state.Entry{entry("a", 0)}, []v1.Workspace{workspace("a")}, time.Time{}},
		"released":                  {[]state.Entry{released, entry("a", 7)}, nil, at(7)},
		"the API server is away":    {[]state.Entry{entry("a", 7), entry("b", 0)}, nil, at(7)},
		"nobody wants to be backed": {[]state.Entry{entry("a", 7)}, []v1.Workspace{workspace("a", filled, metav1.Condition{Type: v1.ConditionBackedUp, Reason: v1.ReasonDisabled})}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(oldestUnsaved(tt.entries, tt.all)).To(Equal(tt.want))
		})
	}
}

func TestFullestVolume(t *testing.T) {
	g := NewWithT(t)
	quantity := func(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.BinarySI) }
	classes := map[string]*metrics.Class{"default": {Fullest: -1}}
	use := func(class string, used, size *resource.Quantity) {
		fullest(classes, &v1.Workspace{Spec: v1.WorkspaceSpec{Volume: v1.VolumeSpec{Class: class}}, Status: v1.WorkspaceStatus{Volume: &v1.VolumeStatus{Used: used, Size: size}}})
	}
	use("default", quantity(5), nil)
	use("default", quantity(5), quantity(0))
	use("other", quantity(5), quantity(5))
	fullest(classes, &v1.Workspace{})
	g.Expect(classes["default"].Fullest).To(Equal(-1.0), "nothing is limited")
	use("default", quantity(30), quantity(100))
	use("default", quantity(90), quantity(100))
	use("default", quantity(10), quantity(100))
	g.Expect(classes["default"].Fullest).To(Equal(0.9))
}

func TestClassesOfTheJournal(t *testing.T) {
	got := classesOf(&content.Keeper{Volumes: map[string]volume.Driver{"good": nil, "idle": nil}}, []state.Entry{
		{Class: "good", Usage: state.Usage{Bytes: 30}}, {Class: "good", Usage: state.Usage{Bytes: 10, Escaped: "some"}}, {Class: "gone", Usage: state.Usage{Bytes: 5}},
	})
	NewWithT(t).Expect(got).To(Equal(map[string]*metrics.Class{
		"good": {Name: "good", Used: 40, Volumes: 2, Escaped: 1, Fullest: -1},
		"idle": {Name: "idle", Fullest: -1},
		"gone": {Name: "gone", Used: 5, Volumes: 1, Fullest: -1},
	}))
}

// Whatever is measured of workspaces is there while they are, and goes with them. What is measured of the node stays.
func TestSeriesOfADaemonGoWithTheirSubject(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	at := freeAddress(t)
	n.edit(func(c *config.Config) { c.Metrics.Address = at })
	node := unique("series")
	n.daemon(t, node)
	series := func(name string) func() []string {
		return func() []string {
			return regexp.MustCompile(`(?m)^ws_daemon_`+name+`(?:\{[^}]*\})? \S+$`).FindAllString(fetch(t, "http://"+at+"/metrics").Body, -1)
		}
	}
	n.Eventually(series("journal_entries"), "30s").Should(Equal([]string{"ws_daemon_journal_entries 0"}))
	ws := &v1.Workspace{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: unique("measured")},
		Spec: v1.WorkspaceSpec{
			NodeName: node, Volume: v1.VolumeSpec{Size: resource.MustParse("64Mi")}, DeletionPolicy: v1.DeletionDelete, Initializer: v1.Initializer{Empty: &v1.EmptyInitializer{}},
		},
	}
	n.Expect(n.Create(t.Context(), ws)).To(Succeed())
	n.Eventually(series("workspace_conditions"), "60s").Should(ContainElement(`ws_daemon_workspace_conditions{condition="Ready",reason="Running",status="True"} 1`))
	n.Eventually(series("oldest_unsaved_change_timestamp_seconds"), "30s").Should(HaveLen(1))
	for name, want := range map[string]string{
		"journal_entries": "ws_daemon_journal_entries 1", "volumes": `ws_daemon_volumes{class="default"} 1`, "workspaces": `ws_daemon_workspaces{state="Running"} 1`,
	} {
		n.Expect(series(name)()).To(Equal([]string{want}))
	}
	for name, least := range map[string]int{"jobs": 10, "job_limit": 5, "job_oldest_wait_seconds": 5, "disk_size_bytes": 2, "disk_usable": 2, "build_info": 1, "volume_class_used_bytes": 1} {
		n.Expect(len(series(name)())).To(BeNumerically(">=", least), name)
	}

	n.Expect(n.Delete(t.Context(), ws)).To(Succeed())
	for _, gone := range []string{"workspaces", "workspace_conditions", "oldest_unsaved_change_timestamp_seconds", "volume_fullest_ratio"} {
		n.Eventually(series(gone), "60s").Should(BeEmpty(), gone)
	}
	n.Eventually(series("journal_entries"), "30s").Should(Equal([]string{"ws_daemon_journal_entries 0"}))
	n.Expect(series("volumes")()).To(Equal([]string{`ws_daemon_volumes{class="default"} 0`}), "the class is there")
}
