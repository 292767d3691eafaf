package content_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores/proxy"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// arrived counts requests at a server.
func arrived(requests []proxy.Request) (reads, writes int) {
	for _, r := range requests {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			reads++
		} else {
			writes++
		}
	}
	return reads, writes
}

// renewed is a store that can be opened anew under those who use it.
type renewed struct{ store.Store }

// TestWhatAWorkspaceCosts counts the requests that arrive at a server, as the documentation tells them, with those that look whether the
// store is there, which are due after ten seconds, or when a store is opened.
func TestWhatAWorkspaceCosts(t *testing.T) {
	t.Parallel()
	for kind, s := range servers(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := &fixture{Gomega: NewWithT(t), t: t, ctx: t.Context(), store: s.made(t)}
			p := storetest.Proxied(t, s.Endpoint)
			at := &renewed{}
			costs := func(what string, reads, writes int, do func()) {
				t.Helper()
				at.Store = s.open(t, p.URL)
				p.Break(nil)
				do()
				gotReads, gotWrites := arrived(p.Requests())
				t.Logf("%s: %d reading and %d writing requests", what, gotReads, gotWrites)
				f.Expect(gotReads).To(BeNumerically("<=", reads), "%s: %+v", what, p.Requests())
				f.Expect(gotWrites).To(Equal(writes), "%s: %+v", what, p.Requests())
			}
			a, b := f.node("node-a"), f.node("node-b")
			a.Store, b.Store = at, at
			r := saveRequest(1)
			r.Keep = history.Keep{Last: 3, Daily: 1}
			change := func(i int) {
				for j := range 5 {
					a.write(fmt.Sprint(j), fmt.Sprint("version ", i))
				}
			}
			backup := func() { f.Expect(a.Backup(f.ctx, r)).To(Succeed()) }
			costs("the first workspace of a namespace", 13, 2, func() { a.fill(1) })
			change(0)
			costs("its first backup", 10, 2, backup)
			for i := range 3 {
				change(i + 1)
				backup()
			}
			for i := range 3 {
				change(i + 10)
				costs("a periodic backup", 2, 3, backup) // one more reads what is collected, after five minutes
			}
			f.Expect(f.entries()).To(Equal("1.7 1.6 1.5 1.0"))
			a.settled(1)
			costs("a periodic backup without changes", 1, 0, backup)
			change(20)
			costs("the final backup, of one pack", 25, 2, func() { a.release(1) })
			costs("removing it from the node", 0, 0, func() { a.remove(1) })
			costs("a start from a backup", 13, 1, func() { b.fill(2) })
			var found history.Collection
			collect := func() {
				d, err := history.OpenDomain(f.ctx, ahead{at}, "team", cluster, false)
				f.Expect(err).NotTo(HaveOccurred())
				found, err = d.Collect(f.ctx, history.CollectOptions{Delete: true})
				f.Expect(err).NotTo(HaveOccurred())
			}
			backups := len(strings.Fields(f.entries()))
			costs("a collection that condemns", 10+backups, 1, collect)
			deletes := map[string]int{"s3": 1, "gcs": int(found.Condemned)}[kind]
			costs("one that sweeps as well", 10+backups, 3+deletes, collect)
			f.Expect(found.Removed).To(BeNumerically(">", 1))
		})
	}
}
