package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// clocked is a store whose clock says what a test wants.
type clocked struct {
	store.Store
	now *time.Time
}

func (c clocked) Now(context.Context) (time.Time, error) { return *c.now, nil }

// Daemons take turns with each other. As soon as there is a controller it has every turn, and they have them again when it is gone.
func TestTheControllerHasAllTurns(t *testing.T) {
	g := NewWithT(t)
	hour := time.Date(2026, 11, 27, 12, 30, 0, 0, time.UTC)
	s := clocked{storetest.Filesystem(t), &hour}
	tender := func(who string) *Tender {
		return &Tender{Store: s, Cluster: "here", Who: who, Domains: &Domains{Store: s, Cluster: "here"}}
	}
	turn := func(who string) bool {
		t.Helper()
		tended, err := tender(who).Tend(t.Context(), logr.Discard(), Rules{Grace: time.Hour})
		g.Expect(err).NotTo(HaveOccurred())
		return tended.Mine
	}
	g.Expect([]bool{turn("a"), turn("b"), turn("a")}).To(Equal([]bool{true, false, false}))
	g.Expect(turn(Controller)).To(BeFalse(), "this hour is another one's")
	hour = hour.Add(time.Hour)
	g.Expect([]bool{turn("a"), turn("b"), turn(Controller), turn(Controller)}).To(Equal([]bool{false, false, true, true}))
	hour = hour.Add(time.Hour)
	g.Expect([]bool{turn("b"), turn("a")}).To(Equal([]bool{false, false}), "it was taken ahead, and the controller is gone")
	hour = hour.Add(time.Hour)
	g.Expect([]bool{turn("b"), turn("a")}).To(Equal([]bool{true, false}))
	records, err := s.List(t.Context(), "tend/here/", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(records).To(HaveLen(1), "those of earlier hours went")
}

// The controller counts what is in all domains together, says what is missing, and leaves those of other clusters alone.
func TestTendCountsAllDomains(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	s := storetest.Filesystem(t)
	lost := history.NewID()
	for domain, cluster := range map[string]string{"one": "here", "two": "here", "other": "elsewhere"} {
		d, err := history.OpenDomain(ctx, s, domain, cluster, false)
		g.Expect(err).NotTo(HaveOccurred())
		id := history.NewID()
		g.Expect(d.PutPack(ctx, id, []byte("content"))).To(Succeed())
		c := history.Commit{ID: "c", Name: history.Name{Claim: 1, Number: 1}, Packs: []history.Pack{{ID: id, Size: 7}}}
		g.Expect(d.Workspace("web").PublishClaim(ctx, 1, history.Owner{}, nil)).To(Succeed())
		g.Expect(d.Workspace("web").Append(ctx, c, history.Name{Claim: 1})).Error().NotTo(HaveOccurred())
		if domain == "two" {
			g.Expect(s.Delete(ctx, "d/two/p/"+id[:2]+"/"+id)).To(Succeed())
			lost = id
		}
	}
	var told []string
	tender := &Tender{
		Store: s, Cluster: "here", Who: Controller, Domains: &Domains{Store: s, Cluster: "here"},
		Missing: func(domain string, found history.Collection) {
			told = append(told, domain+": "+found.Missing[0].String())
		},
	}
	tended, err := tender.Tend(ctx, logr.Discard(), Rules{Collection: history.CollectOptions{Wait: time.Hour}})
	g.Expect(err).To(MatchError("domain two lacks 1 packs that backups need: pack " + lost + " is needed by 1.1 of workspace web"))
	g.Expect(told).To(Equal([]string{"two: pack " + lost + " is needed by 1.1 of workspace web"}))
	g.Expect(tended).To(Equal(Tended{Mine: true, Domains: 2, Packs: 1, Bytes: 7, Missing: 1}))
	tended, err = tender.Tend(ctx, logr.Discard(), Rules{Collection: history.CollectOptions{Wait: time.Hour}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(tended).To(Equal(Tended{Mine: true, Domains: 2}), "once a day")
}

// A store that was swapped is not written to.
func TestS10_ASwappedStoreIsLeftAlone(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	d := &Domains{Store: storetest.Filesystem(t), Cluster: "here"}
	g.Expect(d.Bury(ctx, "team", "web", 1)).To(Succeed())
	d.Store = storetest.Filesystem(t)
	g.Expect(d.Bury(ctx, "team", "web", 1)).To(MatchError(ContainSubstring("restart the controller if that is right")))
	g.Expect(d.Tend(ctx, "team", 0)).Error().To(HaveOccurred())
	g.Expect(d.Store.List(ctx, "d/", "", 0)).To(BeEmpty())
}
