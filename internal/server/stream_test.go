package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// noise is text that does not compress, and is more than a connection buffers.
func noise() string {
	const size = 8 << 20
	var text strings.Builder
	source := rand.New(rand.NewPCG(1, 2))
	for text.Len() < size {
		fmt.Fprintf(&text, "%x", source.Uint64())
	}
	return text.String()
}

// A reader who never reads is left after a while. What he held is free for others, who are served meanwhile.
func TestWhoNeverReadsHoldsNothingUp(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	for i := range 40 {
		w.change(workspace("team-a", fmt.Sprintf("large-%d", i), not("Restoring", strings.Repeat("x", 100_000))))
	}
	w.saved("team-a", "web", map[string]string{"file": noise()})
	w.server.pauses.unread = 500 * time.Millisecond
	c := w.server.Configured()
	c.Exports = 1
	w.server.Configure(c)
	w.start()
	lazy := w.local()
	export, err := lazy.Export(t.Context(), &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	_, err = w.local().Watch(t.Context(), &daemonv1.WatchRequest{})
	w.Expect(err).NotTo(HaveOccurred())
	w.Eventually(w.running).Should(Equal(2))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"), "others are served meanwhile")
	w.Eventually(w.running).Should(BeZero(), "both are left")
	w.Expect(w.log.String()).To(ContainSubstring(`"method"="Export" "namespace"="team-a" "workspace"="web" "result"="DeadlineExceeded"`))
	w.Expect(w.log.String()).To(ContainSubstring(`"method"="Watch" "namespace"="" "workspace"="" "result"="DeadlineExceeded"`))

	w.Expect(drained(w.local().Export, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})(t.Context())).To(Succeed(), "the one place is free")
	for err == nil {
		_, err = export.Recv()
	}
	w.Expect(outcome(err)).To(Equal("DeadlineExceeded: the caller took nothing of what was sent for too long"))
}

// running is how many calls run.
func (w *world) running() int {
	w.server.calls.mu.Lock()
	defer w.server.calls.mu.Unlock()
	return len(w.server.calls.running)
}

// A caller who does not send what he asks for is left when his time is over.
func TestWhoNeverAsksIsLeft(t *testing.T) {
	noLeaks(t)
	w := newWorld(t).start()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	stream, err := w.connect().NewStream(ctx, &daemonv1.WorkspaceService_ServiceDesc.Streams[0], "/wsdaemon.daemon.v1.WorkspaceService/Watch")
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(outcome(stream.RecvMsg(&daemonv1.WatchResponse{}))).To(HavePrefix("DeadlineExceeded: "), "whichever end finds it first")
	w.Eventually(w.running).Should(BeZero())
}

// measured are the values of a metric, by the values of its labels.
func measured(w *world, name string) map[string]float64 {
	registry := prometheus.NewRegistry()
	w.Expect(w.server.Metrics.Register(registry)).To(Succeed())
	families, err := registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name {
				values[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return values
}

// counted is the sum of all values of a metric.
func counted(w *world, name string) float64 {
	sum := 0.0
	for _, value := range measured(w, name) {
		sum += value
	}
	return sum
}

// A mistake in the daemon is the end of one call.
func TestAPanicIsAnError(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	w.engine.panics = true
	const want = "Internal: a mistake in the daemon: its log has the details, at this time; please report them"
	w.Expect(outcome(drained(w.local().Backup, &daemonv1.BackupRequest{Namespace: "team-a", Name: "web"})(t.Context()))).To(Equal(want))
	w.Expect(w.log.String()).To(And(ContainSubstring(`"panic"="at the engine"`), ContainSubstring("RequestBackup")))
	w.Expect(counted(w, "ws_daemon_service_panics_total")).To(Equal(1.0))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
}

// A caller who begins too much is refused, and others are not.
func TestCallersAreCountedApart(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.start()
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1, Exports: 1})
	reader := w.remote(mutual(ours, ours.issue("reader")))
	var got []string
	for range 5 {
		got = append(got, outcome(get(reader, "team-a", "web")))
	}
	const refused = "ResourceExhausted: more than 1 calls in a second (service.requestsPerSecond): try again a little later"
	w.Expect(got[:2]).To(Equal([]string{"OK", "OK"}))
	w.Expect(got[2:]).To(ContainElement(refused))
	w.Expect(outcome(get(w.remote(mutual(ours, ours.issue("", withURI(manager)))), "team-a", "web"))).To(Equal("OK"))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
	w.Eventually(func() string { return outcome(get(reader, "team-a", "web")) }).Should(Equal("OK"))
}

func TestCallersThatAreCountedDoNotPileUp(t *testing.T) {
	g := NewWithT(t)
	var c callers
	c.configure(1)
	for i := range maxCallers + 100 {
		_, err := c.admit(&caller{key: fmt.Sprint(i)})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(c.counts).To(HaveLen(maxCallers))
	g.Expect(c.counts).To(HaveKey(fmt.Sprint(maxCallers + 99)))
}

// When the daemon ends, calls end with it, with a word that says so.
func TestCallsEndWithTheDaemon(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-a", "slow", not("Restoring", ""))).start()
	calls := map[string]func(context.Context) error{
		"Watch":  drained(w.local().Watch, &daemonv1.WatchRequest{}),
		"Backup": drained(w.local().Backup, &daemonv1.BackupRequest{Namespace: "team-a", Name: "web"}),
		"WaitReady": func(ctx context.Context) error {
			return second(w.local().WaitReady(ctx, &daemonv1.WaitReadyRequest{Namespace: "team-a", Name: "slow"}))
		},
	}
	ended := make(chan string, len(calls))
	for method, call := range calls {
		go func() { ended <- method + " " + outcome(call(context.Background())) }()
	}
	w.Eventually(w.running).Should(Equal(3))
	w.stop()
	const stopping = " Unavailable: the daemon of this node stops: call again when it is back"
	w.Expect([]string{<-ended, <-ended, <-ended}).To(ConsistOf("Watch"+stopping, "Backup"+stopping, "WaitReady"+stopping))
	w.Expect(w.request(0).leavers()).To(Equal(1))
}

// Who asked for what, and what came of it, is in the log, each call once; so is who was refused. Nothing that is sent fills it.
func TestTheAuditLogSaysWhoAskedForWhat(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.start()
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1000, Exports: 1})
	w.Expect(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web")).To(Succeed())
	w.Expect(get(w.remote(mutual(ours, ours.issue("stranger"))), "team-b", "web")).NotTo(Succeed())
	w.Expect(get(w.remote(mutual(ours)), "team-a", "web")).NotTo(Succeed())
	w.Expect(get(w.local(), "team-a", strings.Repeat("x", 10_000))).NotTo(Succeed())
	w.Eventually(w.log.String).Should(And(
		MatchRegexp(`audit .*"msg"="call" "caller"="CN=reader at 127.0.0.1:\d+" "method"="Get" "namespace"="team-a" "workspace"="web" "result"="OK" "duration"="[^"]+"\n`),
		MatchRegexp(`audit .*"caller"="CN=stranger at 127.0.0.1:\d+" "method"="Get" "namespace"="team-b" "workspace"="web" "result"="PermissionDenied" .*"message"="CN=stranger may not Get`),
		MatchRegexp(`audit .*"msg"="refused" "peer"="127.0.0.1:\d+" "reason"="tls: client didn't provide a certificate"`),
		MatchRegexp(fmt.Sprintf(`audit .*"caller"="uid 0, pid %d" "method"="Get" "namespace"="team-a" "workspace"="x{128}…" "result"="InvalidArgument"`, os.Getpid())),
	))
	w.Expect(counted(w, "ws_daemon_service_handshakes_refused_total")).To(BeNumerically(">=", 1))
	w.Expect(counted(w, "ws_daemon_service_calls_total")).To(BeNumerically(">=", 3))
}

// Secrets of what an error came from reach no caller.
func TestErrorsHaveCodesAndNoSecrets(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	w.saved("team-a", "web", map[string]string{"file": "text"})
	w.engine.keeper.Store = storetest.Faulty(w.store, func(string, string) error {
		return errors.New("GET https://me:secret@store: no route to host")
	})
	w.start()
	_, err := w.local().ListBackups(t.Context(), &daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web"})
	w.Expect(outcome(err)).To(And(HavePrefix("Unavailable: object store "), HaveSuffix("GET https://[redacted]@store: no route to host")))
	w.Expect(w.log.String()).NotTo(ContainSubstring("me:secret"))
}
