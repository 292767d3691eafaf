package prometheus

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// daemon is one that has nothing but metrics.
func daemon(t *testing.T, text string) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

const someRules = `{"groups": [{"name": "some", "rules": [
	{"alert": "Quiet", "expr": "ws_daemon_orphans > 5", "for": "1m"},
	{"alert": "Waiting", "expr": "ws_daemon_orphans{node=\"a\"} > 1", "for": "1h"},
	{"alert": "Loud", "expr": "ws_daemon_orphans{node=\"b\"} > 2"}]}]}`

// A real Prometheus tells what holds for what the daemons have, and what cannot be asked.
func TestExamine(t *testing.T) {
	g := NewWithT(t)
	program, err := Build(t.Context(), t.Output())
	g.Expect(err).NotTo(HaveOccurred())
	rules := Rules{Text: []byte(someRules), Alerts: []Rule{{Alert: "Quiet", Expr: "ws_daemon_orphans > 5"}, {Alert: "Loud", Expr: "ws_daemon_unheard_of"}}}
	server, err := Start(t.Context(), Options{Program: program, Dir: t.TempDir(), Rules: rules, Interval: time.Second, Nodes: map[string]string{
		"a": daemon(t, "ws_daemon_orphans 2\n"), "b": daemon(t, "ws_daemon_orphans 3\n"), "c": "127.0.0.1:1",
	}})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = server.Stop() })
	definitions := []metrics.Definition{
		metrics.Define(metrics.Histogram, "seconds", "How long it took; absent before the first."),
		metrics.Define(metrics.Gauge, "always", "It is always there."),
	}
	queries := []Query{
		{"One", "sum(ws_daemon_orphans)"}, {"Two", "ws_daemon_seconds_bucket"}, {"Three", "sum(ws_daemon_always"}, {"Four", "ws_daemon_orphans > 7"},
	}
	examine := func() (Report, error) { return server.Examine(t.Context(), rules, queries, definitions) }
	g.Eventually(examine, "1m", "100ms").Should(HaveField("Alerts", And(HaveLen(3), ContainElement(HaveField("Fired", true)), ContainElement(And(
		HaveField("Name", "Waiting"), HaveField("State", "pending"), HaveField("Held", BeNumerically(">", 0)),
	)))))
	r, err := examine()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.Absent).To(Equal(map[string]string{"ws_daemon_seconds_bucket": "How long it took; absent before the first."}))
	g.Expect(r).To(And(HaveField("Queries", 4), HaveField("Answered", 1)))
	g.Expect(r.Problems).To(ConsistOf(
		"the daemon of c does not answer", "no daemon has ws_daemon_always, and nothing documents when it is absent",
		"no daemon has ws_daemon_unheard_of, and nothing documents when it is absent",
		MatchRegexp(`^panel Three: sum\(ws_daemon_always: invalid parameter "query": .*unclosed left parenthesis`),
	))

	r.Problems = nil
	var out bytes.Buffer
	g.Expect(r.Print(&out, "Waiting")).To(MatchError("alert Loud: is firing"))
	g.Expect(r.Print(io.Discard, "Loud")).To(MatchError("alert Waiting: is pending"))
	g.Expect(r.Print(io.Discard, "Loud", "Waiting")).To(Succeed())
	g.Expect(out.String()).To(Equal(`3 alert rules were evaluated:
  Quiet                      quiet
  Waiting                    is pending
  Loud                       is firing
4 queries of the dashboard were evaluated, 1 have an answer. What no daemon has had:
  ws_daemon_seconds_bucket: How long it took; absent before the first.
`))
}

func TestAlertInWords(t *testing.T) {
	g := NewWithT(t)
	g.Expect(Alert{State: "inactive", Held: 21 * time.Second, For: 10 * time.Minute}.String()).
		To(Equal("was true for 21s in all, and fires after 10m0s at a time"))
	g.Expect(Alert{State: "inactive", Held: time.Hour, For: time.Minute, Fired: true}.String()).To(Equal("has fired"))
}
