package controllers

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
)

const orphanGrace = 24 * time.Hour

// missed returns n entries, the first of which are without their objects for so long, and were looked for until noon.
func missed(n, without int, since time.Duration) []state.Entry {
	entries := make([]state.Entry, n)
	for i := range entries {
		entries[i] = state.Entry{UID: fmt.Sprintf("uid-%d", i), Namespace: "team", Name: fmt.Sprintf("web-%d", i)}
		if i < without {
			at := noon.Add(-since)
			entries[i].MissingSince, entries[i].MissingSeen = &at, noon
		}
	}
	return entries
}

// running is an orphanage whose process has seen the first orphan so long ago.
func runningSince(ago time.Duration) *orphanage { return &orphanage{began: noon.Add(-ago)} }

func TestS10_OrphansAreDueAfterTheGrace(t *testing.T) {
	seen := func(since, last time.Duration) state.Entry {
		at := noon.Add(-since)
		return state.Entry{MissingSince: &at, MissingSeen: noon.Add(-last)}
	}
	for name, tt := range map[string]struct {
		entry state.Entry
		want  bool
	}{
		"never missed":         {state.Entry{}, false},
		"a second short":       {seen(orphanGrace-time.Second, 0), false},
		"exactly":              {seen(orphanGrace, 0), true},
		"long":                 {seen(30*orphanGrace, 0), true},
		"looked for a while":   {seen(orphanGrace, orphanGrace/10), true},
		"nobody looked":        {seen(orphanGrace, orphanGrace/10+1), false},
		"the clock jumped off": {seen(-time.Hour, -time.Hour), false},
	} {
		NewWithT(t).Expect(due(tt.entry, noon, orphanGrace)).To(Equal(tt.want), name)
	}
}

func TestS10_FewOrphansGoAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		volumes, missing int
		ago              time.Duration
		allowed          int
		alarm            bool
	}{
		"one may always go":           {1, 1, time.Hour, 1, false},
		"one of five":                 {5, 1, time.Hour, 1, false},
		"two of five":                 {5, 2, time.Hour, 0, true},
		"a tenth":                     {100, 10, time.Hour, 10, false},
		"more than a tenth":           {100, 11, time.Hour, 0, true},
		"everything":                  {100, 100, time.Hour, 0, true},
		"the daemon was just started": {100, 1, time.Hour - time.Second, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			o, all, allowed := runningSince(tt.ago), missed(tt.volumes, tt.missing, orphanGrace), 0
			g.Expect(o.alarm(all, noon, orphanGrace, "n") != nil).To(Equal(tt.alarm), "before")
			for _, e := range all[:tt.missing] {
				if _, ok := o.allow(e, all, noon, orphanGrace); ok {
					allowed++
				}
			}
			g.Expect(allowed).To(Equal(tt.allowed))
			g.Expect(o.alarm(all, noon, orphanGrace, "n") != nil).To(Equal(tt.alarm), "after")
		})
	}
}

// What went within the hour counts, whether it is gone by now or not.
func TestS10_OrphansAreCountedByTheHour(t *testing.T) {
	g := NewWithT(t)
	o, all := runningSince(time.Hour), missed(20, 3, orphanGrace)
	allow := func(i int, left []state.Entry, at time.Time) (first, allowed bool) {
		for i := range left {
			left[i].MissingSeen = at
		}
		return o.allow(all[i], left, at, orphanGrace)
	}
	first, allowed := allow(0, all[:1:1], noon)
	g.Expect([]bool{first, allowed}).To(Equal([]bool{true, true}))
	first, allowed = allow(0, all[:1:1], noon.Add(time.Minute))
	g.Expect([]bool{first, allowed}).To(Equal([]bool{false, true}), "what was allowed stays allowed, and is told once")

	left := append(all[1:2:2], missed(20, 0, 0)[3:]...) // one is gone, one is due
	_, allowed = allow(1, left, noon.Add(59*time.Minute))
	g.Expect(allowed).To(BeFalse(), "two of nineteen within an hour")
	_, allowed = allow(1, left, noon.Add(time.Hour))
	g.Expect(allowed).To(BeTrue())
}

func TestS10_APersonLetsOrphansGo(t *testing.T) {
	g := NewWithT(t)
	o, all := runningSince(0), missed(4, 2, orphanGrace)
	later := noon.Add(-orphanGrace).Add(time.Second)
	all[3].MissingSince, all[3].MissingSeen = &later, noon
	now := noon.Add(time.Second)
	f := o.alarm(all, now, orphanGrace, "node-a")
	g.Expect(f).To(Equal(found(v1.ReasonTooManyOrphans, "the objects of team/web-0, team/web-1, team/web-3 have been missing for 24h0m0s: "+
		"more volumes than the 1 of 4 that may go within 1h0m0s, so none of them is removed. Bring the objects back; or, if these workspaces shall go, "+
		"set the annotation workspace.wsdaemon.dev/remove-orphans=%s on WorkspaceNode node-a, and each is removed after a stray snapshot", later.Format(time.RFC3339))))

	for name, annotation := range map[string]string{
		"none": "", "no time": "yes", "a time that lies ahead": now.Add(time.Hour).Format(time.RFC3339),
		"an old one": noon.Add(-orphanGrace - time.Second).Format(time.RFC3339),
	} {
		o.consent(annotation, now)
		_, allowed := o.allow(all[0], all, now, orphanGrace)
		g.Expect(allowed).To(BeFalse(), name)
	}
	g.Expect(o.consent(noon.Add(-orphanGrace).Format(time.RFC3339), now)).To(BeTrue())
	g.Expect(o.consent(noon.Add(-orphanGrace).Format(time.RFC3339), now)).To(BeFalse(), "it is no news")
	for i, want := range []bool{true, true, false, false} {
		_, allowed := o.allow(all[i], all, now, orphanGrace)
		g.Expect(allowed).To(Equal(want), "volume %d", i)
	}
	g.Expect(o.alarm(all, now, orphanGrace, "node-a")).To(BeNil(), "one may go by itself")
	missing, removed := o.counts(all)
	g.Expect([]int{missing, removed}).To(Equal([]int{3, 2}))
}
