package history

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// A machine stands still between its look at what is collected and its commit, for so long that a pack of the commit is condemned
// and swept. Whether its own clock shows that or not: nobody takes the commit for a backup.
func TestS1_MachineThatStoodStill(t *testing.T) {
	for name, shown := range map[string]time.Duration{"its clock went on": 48 * time.Hour, "its clock stood still, too": 0} {
		t.Run(name, func(t *testing.T) {
			g, ctx, s := NewWithT(t), t.Context(), storetest.Filesystem(t)
			other, err := OpenDomain(ctx, s, "team", "cluster", false)
			g.Expect(err).NotTo(HaveOccurred())
			p := modelPack("old", true)
			g.Expect(other.PutPack(ctx, p.ID, []byte("old"))).To(Succeed())
			clock := time.Duration(0)
			d, err := OpenDomain(ctx, storetest.Faulty(s, func(op, key string) error {
				if op == "put" && strings.HasPrefix(key, "d/team/w/a/") && clock == 0 {
					clock = 1 + shown
					for range 2 {
						_, err := other.Collect(ctx, CollectOptions{Delete: true})
						g.Expect(err).NotTo(HaveOccurred())
					}
				}
				return nil
			}), "team", "cluster", false)
			g.Expect(err).NotTo(HaveOccurred())
			d.clock = func() time.Duration { return clock }
			g.Expect(other.Workspace("a").PublishClaim(ctx, 1, Owner{}, nil)).To(Succeed())

			ref, err := d.Workspace("a").Append(ctx, modelCommit("a", "1.1", Name{}, p), Name{})
			if shown > 0 {
				g.Expect(err).To(MatchError(ErrCondemned))
				return
			}
			g.Expect(err).NotTo(HaveOccurred(), "it cannot know")
			g.Expect(d.Workspace("a").Verify(ctx, ref, nil, nil)).To(MatchError(ErrCondemned), "but the content stays until it was read back")
			g.Expect(d.VerifyPacks(ctx, []Pack{p})).To(MatchError(ErrCondemned), "and the next backup begins with that")
		})
	}
}

// A store that takes longer to answer than collection waits is not written to.
func TestSlowStoreIsNotReliedOn(t *testing.T) {
	g, ctx, s := NewWithT(t), t.Context(), storetest.Filesystem(t)
	clock := time.Duration(0)
	d, err := OpenDomain(ctx, storetest.Faulty(s, func(op, key string) error {
		if op == "list" && strings.HasPrefix(key, "d/team/w/") {
			clock += maxLag + time.Second
		}
		return nil
	}), "team", "cluster", false)
	g.Expect(err).NotTo(HaveOccurred())
	d.clock = func() time.Duration { return clock }
	_, err = d.Workspace("a").Append(ctx, modelCommit("a", "1.1", Name{}), Name{})
	g.Expect(err).To(MatchError(ContainSubstring("the store took 10m1s to answer")))
	left, err := s.List(ctx, "d/team/w/", "", 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(BeEmpty())
}
