package history

import (
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// parseCandidates reads "7.2@3 ~7.1@2 !6.3@1": name and day; ~ is incomplete, ! a fork, % a fork that was pinned, ? unknown, + appended
// after the others were listed.
func parseCandidates(t *testing.T, text string) []candidate {
	t.Helper()
	var all []candidate
	for field := range strings.FieldsSeq(text) {
		rest, day, dated := strings.Cut(strings.TrimLeft(field, "~!%?+"), "@")
		n, err := ParseName(rest)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		c := candidate{Entry: Entry{Name: n}}
		flags := strings.TrimSuffix(field, strings.TrimLeft(field, "~!%?+"))
		c.pinned = strings.Contains(flags, "%")
		c.fork = c.pinned || strings.Contains(flags, "!")
		c.unknown = strings.Contains(flags, "?")
		c.appended = strings.Contains(flags, "+")
		c.complete = !n.IsClaim() && !strings.ContainsAny(flags, "~?")
		if dated {
			c.Modified, err = time.Parse("2.15:04 2006-01", day+" 2026-01")
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		}
		all = append(all, c)
	}
	NewWithT(t).Expect(slices.IsSortedFunc(all, func(a, b candidate) int { return b.Name.Compare(a.Name) })).To(BeTrue())
	return all
}

func TestRetention(t *testing.T) {
	for what, c := range map[string]struct {
		candidates string
		keep       Keep
		removed    string
	}{
		"nothing there":              {"", Keep{Last: 1}, ""},
		"only a claim":               {"1.0", Keep{}, ""},
		"last":                       {"1.5 1.4 1.3 1.2 1.1 1.0", Keep{Last: 2}, "1.3 1.2 1.1"},
		"fewer than last":            {"1.2 1.1 1.0", Keep{Last: 5, Daily: 7}, ""},
		"last of nothing is one":     {"1.2 1.1 1.0", Keep{}, "1.1"},
		"negative":                   {"1.2 1.1 1.0", Keep{Last: -3, Daily: -3}, "1.1"},
		"newest of each day":         {"1.6@3.10:00 1.5@3.09:00 1.4@2.23:59 1.3@2.00:00 1.2@1.12:00 1.1@1.11:00 1.0", Keep{Last: 1, Daily: 3}, "1.5 1.3 1.1"},
		"days without backups":       {"1.4@20.10:00 1.3@20.09:00 1.2@3.12:00 1.1@1.12:00 1.0", Keep{Last: 1, Daily: 2}, "1.3 1.1"},
		"last and daily":             {"1.6@3.10:00 1.5@3.09:00 1.4@3.08:00 1.3@2.08:00 1.2@2.07:00 1.1@1.08:00 1.0", Keep{Last: 2, Daily: 2}, "1.4 1.2 1.1"},
		"clock stepped back":         {"1.4@1.10:00 1.3@5.10:00 1.2@5.09:00 1.1@4.10:00 1.0", Keep{Last: 1, Daily: 2}, "1.2"},
		"incomplete do not count":    {"~1.5 1.4 ~1.3 1.2 1.1 1.0", Keep{Last: 2}, "1.1"},
		"newest complete stays":      {"~1.9 ~1.8 ~1.7 ~1.6 1.5 1.4 1.0", Keep{Last: 1}, "1.8 1.7 1.6 1.4"},
		"last incomplete stay":       {"~1.9 ~1.8 ~1.7 1.6 ~1.5 ~1.4 1.0", Keep{Last: 2}, "1.7 1.5 1.4"},
		"incomplete beyond last":     {"1.9 ~1.8 ~1.7 ~1.6 1.5 1.0", Keep{Last: 2}, "1.6"},
		"only incomplete":            {"~1.4 ~1.3 ~1.2 ~1.1 1.0", Keep{Last: 1}, ""},
		"claims without commits":     {"4.1 4.0 3.0 2.1 2.0 1.1 1.0", Keep{Last: 2}, "3.0 1.1 1.0"},
		"claim before first commit":  {"4.0 3.0 2.1 2.0 1.1 1.0", Keep{Last: 1}, ""},
		"only incomplete of ours":    {"~4.1 4.0 2.2 2.1 2.0", Keep{Last: 1}, ""},
		"claim of an incomplete one": {"3.1 3.0 ~2.1 2.0", Keep{Last: 1}, ""},
		"fork is not counted":        {"2.1 2.0 !1.3 1.2 1.1 1.0", Keep{Last: 2}, "1.1"},
		"fork stays":                 {"2.2 2.1 2.0 !1.3 1.2 1.0", Keep{Last: 1}, "2.1 1.2"},
		"incomplete fork stays":      {"2.2 2.1 2.0 ~!1.4 !1.3 1.0", Keep{Last: 1}, "2.1"},
		"pinned fork goes":           {"2.2 2.1 2.0 %1.3 1.2 1.0", Keep{Last: 1}, "2.1 1.3 1.2 1.0"},
		"pinned fork before ours":    {"2.0 %1.3 1.2 1.1 1.0", Keep{Last: 1}, ""},
		"pinned incomplete fork":     {"2.1 2.0 ~%1.3 ~1.2 1.0", Keep{Last: 1}, "1.2"},
		"unknown stays, uncounted":   {"1.5 ?1.4 1.3 1.2 1.0", Keep{Last: 2}, "1.2"},
		"unknown is not incomplete":  {"1.5 ?1.4 ?1.3 ~1.2 ~1.1 1.0", Keep{Last: 1}, "1.1"},
		"unknown is no day's newest": {"1.4@2.10:00 ?1.3@1.12:00 1.2@1.11:00 1.1@1.10:00 1.0", Keep{Last: 1, Daily: 2}, "1.1"},
		"unknown newest":             {"?1.4 1.3 1.2 1.1 1.0", Keep{Last: 1}, "1.2 1.1"},
		"only unknown of ours":       {"?2.1 2.0 1.2 1.1 1.0", Keep{Last: 1}, ""},
		"claim of an unknown one":    {"2.1 2.0 ?1.2 1.1 1.0", Keep{Last: 1}, "1.1"},
		"appended":                   {"+1.5 1.4 1.3 1.2 1.0", Keep{Last: 2}, "1.3 1.2"},
		"appended, newest listed":    {"+1.5 1.4 1.3 1.2 1.0", Keep{Last: 1}, "1.3 1.2"},
		"appended, incomplete last":  {"+1.5 ~1.4 1.3 1.2 1.0", Keep{Last: 1}, "1.2"},
		"appended incomplete":        {"~+1.5 1.4 1.3 1.2 1.0", Keep{Last: 1}, "1.3 1.2"},
		"appended first of ours":     {"+2.1 2.0 1.2 1.1 1.0", Keep{Last: 1}, "1.1"},
		"appended has no day":        {"+1.5 1.4@2.10:00 1.3@1.11:00 1.2@1.10:00 1.0", Keep{Last: 1, Daily: 2}, "1.2"},
		"all before ours unknown":    {"2.2 2.1 2.0 ?1.2 ?1.1 ?1.0", Keep{Last: 1}, "2.1"},
	} {
		t.Run(what, func(t *testing.T) {
			g := NewWithT(t)
			var removed []string
			for _, n := range expendable(parseCandidates(t, c.candidates), c.keep) {
				removed = append(removed, n.String())
			}
			g.Expect(strings.Join(removed, " ")).To(Equal(c.removed))
		})
	}
}

// Whatever history and policy there are: the newest complete backup, the newest claim, forks and what cannot be read stay, and a
// second run removes nothing more.
func FuzzS1_RetentionInvariants(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, 1, 1)
	f.Add([]byte{0, 0, 64, 64, 0, 255, 128, 3, 17, 200, 100}, 0, 3)
	f.Add([]byte{5, 5, 5, 5}, -1, -1)
	f.Fuzz(func(t *testing.T, shape []byte, last, daily int) {
		g := NewWithT(t)
		candidates := shaped(shape)
		removed := expendable(candidates, Keep{Last: last, Daily: daily})
		left := slices.DeleteFunc(slices.Clone(candidates), func(c candidate) bool { return slices.Contains(removed, c.Name) })
		g.Expect(len(left) + len(removed)).To(Equal(len(candidates)))
		g.Expect(newestOwn(left) < 0).To(Equal(newestOwn(candidates) < 0))
		if at := newestOwn(candidates); at >= 0 {
			g.Expect(left[newestOwn(left)].Name).To(Equal(candidates[at].Name))
		}
		newestClaim := slices.IndexFunc(candidates, func(c candidate) bool { return c.Name.IsClaim() })
		for i, c := range candidates {
			if i == newestClaim || c.unknown || c.fork && !c.pinned {
				g.Expect(removed).NotTo(ContainElement(c.Name))
			}
		}
		g.Expect(expendable(left, Keep{Last: last, Daily: daily})).To(BeEmpty())
	})
}

// shaped makes a history out of bytes, newest first.
func shaped(shape []byte) []candidate {
	var all []candidate
	n := Name{Claim: 1}
	for _, b := range shape {
		if b%5 == 0 {
			n = Name{Claim: n.Claim + 1}
		}
		c := candidate{Entry: Entry{Name: n, Modified: time.Unix(int64(b)*20_000, 0)}}
		c.unknown = b&24 == 24 && !n.IsClaim()
		c.complete = b&1 == 0 && !n.IsClaim() && !c.unknown
		c.fork = b&6 == 6 && !n.IsClaim()
		c.pinned = b&8 == 8
		all = append(all, c)
		n.Number++
	}
	slices.Reverse(all)
	if len(all) > 0 && !all[0].Name.IsClaim() {
		all[0].appended = shape[0]&32 == 32
	}
	for i := range all {
		all[i].fork = all[i].fork && all[i].Name.Claim < all[0].Name.Claim // as candidates sees to it
	}
	return all
}
