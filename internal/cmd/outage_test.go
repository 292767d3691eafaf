package cmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

func subject(uid string) content.Subject {
	return content.Subject{UID: uid, Namespace: "team", Name: "ws-" + uid, Class: "default", Claim: 1}
}

func idle(context.Context) error { return nil }

// fill makes a volume with content and returns the directory that its users see.
func (n *node) fill(t *testing.T, k *content.Keeper, s content.Subject) string {
	t.Helper()
	n.Expect(k.Provision(t.Context(), s, 1<<20, 0)).To(Succeed())
	n.Expect(k.Fill(t.Context(), content.FillRequest{Subject: s, InUse: idle})).Error().NotTo(HaveOccurred())
	return k.Volumes[s.Class].Path(s.UID, volume.Published)
}

// hasty is an outage in which minutes are instants.
func (n *node) hasty(t *testing.T, k *content.Keeper, log logr.Logger) *outage {
	t.Helper()
	cfg, err := config.Load(n.config)
	n.Expect(err).NotTo(HaveOccurred())
	o := newOutage(log, cfg, k, recoverDisk(t.Context(), log, k))
	o.patience, o.interval, o.tick = time.Millisecond, 50*time.Millisecond, 5*time.Millisecond
	return o
}

func newest(k *content.Keeper, s content.Subject) func() string {
	return func() string {
		e, _ := k.Area.Journal().Get(s.UID)
		return e.Backup.Name
	}
}

func write(n *node, dir, text string) {
	n.Expect(os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600)).To(Succeed())
}

// A daemon that starts while the API server is away saves what is in use, under the claims that it finds on its disk, until it
// is told by somebody what to do. Then it has ended all of it.
func TestS5_BackupsGoOnWithoutTheAPIServer(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	used, released, unfinished := subject("used"), subject("released"), subject("unfinished")
	dir := n.fill(t, k, used)
	write(n, dir, "one")
	n.fill(t, k, released)
	n.Expect(k.Release(t.Context(), content.SaveRequest{Subject: released}, idle)).To(Equal("1.1"))
	n.Expect(k.Provision(t.Context(), unfinished, 1<<20, 0)).To(Succeed())
	before, _ := k.Area.Journal().Get(released.UID)

	answer := make(chan string)
	var log lines
	o := n.hasty(t, k, log.logger())
	done := make(chan string, 1)
	go func() {
		got, err := o.bridge(t.Context(), func(context.Context) (string, error) { return <-answer, nil })
		n.Expect(err).NotTo(HaveOccurred())
		done <- got
	}()
	n.Eventually(newest(k, used), "10s").Should(Equal("1.1"))
	write(n, dir, "two")
	n.Eventually(newest(k, used), "10s").Should(Equal("1.2"))
	n.Expect(done).NotTo(Receive())
	answer <- "cluster"
	n.Eventually(done, "10s").Should(Receive(Equal("cluster")))
	write(n, dir, "three")
	n.Consistently(newest(k, used), "200ms").Should(Equal("1.2"), "from here on others make backups")

	n.Expect(log.String()).To(ContainSubstring("the API server does not answer: backups go on without it"))
	n.Expect(log.String()).NotTo(ContainSubstring("failed"))
	after, _ := k.Area.Journal().Get(released.UID)
	n.Expect(after).To(Equal(before), "what was released is nobody's any more")
	none, _ := k.Area.Journal().Get(unfinished.UID)
	n.Expect(none.Backup).To(Equal(state.Backup{}))
}

// When the API server answers, a backup that hangs is cut off before the reconcilers begin; that is no failed attempt.
func TestTheAnswerEndsABackupUnderWay(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	s := subject("used")
	write(n, n.fill(t, k, s), "one")
	hung := &hanging{Store: k.Store, entered: make(chan struct{})}
	k.Store = hung
	cluster, err := n.hasty(t, k, logr.Discard()).bridge(t.Context(), func(context.Context) (string, error) {
		<-hung.entered
		return "cluster", nil
	})
	n.Expect(cluster, err).To(Equal("cluster"))
	e, _ := k.Area.Journal().Get(s.UID)
	n.Expect([]any{e.Backup.Name, e.Backup.Attempts}).To(Equal([]any{"", 0}))
	n.Expect(hung.left.Load()).To(BeTrue(), "it has ended when bridge returns")
}

// hanging is a store that answers nothing but reads.
type hanging struct {
	store.Store
	once    sync.Once
	entered chan struct{}
	left    atomic.Bool
}

func (h *hanging) Put(ctx context.Context, _ string, _ []byte) error {
	h.once.Do(func() { close(h.entered) })
	<-ctx.Done()
	h.left.Store(true)
	return ctx.Err()
}

// At most starts the API server answers at once: what is due is then not begun only to be cut off.
func TestNoOutageBeforePatienceEnds(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	write(n, n.fill(t, k, subject("used")), "one")
	o := n.hasty(t, k, logr.Discard())
	o.patience = time.Hour
	refused := errors.New("refused")
	n.Expect(o.bridge(t.Context(), func(context.Context) (string, error) { return "", refused })).Error().To(MatchError(refused))
	n.Expect(newest(k, subject("used"))()).To(BeEmpty())
}

// A volume whose backup fails does not keep others from theirs, and is tried again after a pause.
func TestOutageGoesOnAfterAFailure(t *testing.T) {
	noLeaks(t)
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	bad, good := subject("bad"), subject("good")
	write(n, n.fill(t, k, bad), "one")
	write(n, n.fill(t, k, good), "one")
	broken := errors.New("broken")
	k.Store = storetest.Faulty(k.Store, func(op, key string) error {
		if op == "list" && strings.Contains(key, "/ws-bad/") {
			return broken
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var log lines
	o := n.hasty(t, k, log.logger())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()
	n.Eventually(newest(k, good), "10s").Should(Equal("1.1"))
	n.Eventually(func() int {
		e, _ := k.Area.Journal().Get(bad.UID)
		return e.Backup.Attempts
	}, "10s").Should(BeNumerically(">=", 2))
	n.Expect(log.String()).To(ContainSubstring("backup failed while the API server does not answer"))
	cancel()
	n.Eventually(done, "10s").Should(Receive(BeNil()))
}

func TestWhenABackupIsDue(t *testing.T) {
	n := newNode(t)
	k := n.keeper(t, "node-a", "here")
	s := subject("used")
	n.fill(t, k, s)
	o := n.hasty(t, k, logr.Discard())
	o.interval = 10 * time.Minute
	seen, err := k.Observe(t.Context(), s)
	n.Expect(err).NotTo(HaveOccurred())
	finished, pause := seen.Marker.Content.Finished, content.Jitter(10*time.Minute, s.UID)
	for name, tt := range map[string]struct {
		backup state.Backup
		want   time.Time
	}{
		"never made":     {state.Backup{}, finished.Add(pause)},
		"looked at":      {state.Backup{CheckedAt: finished.Add(time.Hour)}, finished.Add(time.Hour + pause)},
		"failed":         {state.Backup{NextAttempt: finished.Add(time.Hour), Reason: "UploadFailed"}, finished.Add(time.Hour)},
		"failed earlier": {state.Backup{NextAttempt: finished.Add(time.Minute), LastFailure: finished}, finished.Add(pause)},
		"fenced":         {state.Backup{LastFailure: finished.Add(time.Hour), Reason: v1.ReasonFenced}, finished.Add(time.Hour + pause)},
	} {
		_, err := k.Area.Journal().Update(s.UID, func(e *state.Entry, _ bool) bool {
			e.Backup = tt.backup
			return true
		})
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(o.due(t.Context(), s)).To(BeTemporally("==", tt.want), name)
	}
}

// A user fills the disk that the working area lies on, then changes a file in place: the change is saved all the same, and so
// is a failure.
func TestS9_BackupsGoOnOnAFullDisk(t *testing.T) {
	n := newNode(t)
	n.Expect(unix.Mount("none", n.area, "tmpfs", 0, "size=4m")).To(Succeed())
	t.Cleanup(func() { n.Expect(unix.Unmount(n.area, unix.MNT_DETACH)).To(Succeed()) })
	k := n.keeper(t, "node-a", "here")
	var down error
	k.Store = storetest.Faulty(k.Store, func(string, string) error { return down })
	s := subject("used")
	dir := n.fill(t, k, s)
	write(n, dir, "before")
	n.Expect(k.Backup(t.Context(), content.SaveRequest{Subject: s})).To(Succeed())
	n.Expect(fillDisk(filepath.Join(dir, "zeros"))).To(MatchError(unix.ENOSPC))
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY, 0)
	n.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	for i, name := range []string{"1.2", "1.3", "1.4", "1.5"} {
		n.Expect(f.WriteAt([]byte{byte(i)}, 0)).To(Equal(1))
		n.Expect(k.Backup(t.Context(), content.SaveRequest{Subject: s})).To(Succeed())
		n.Expect(newest(k, s)()).To(Equal(name))
	}
	down = errors.New("broken")
	n.Expect(k.Backup(t.Context(), content.SaveRequest{Subject: s})).To(MatchError(down))
	e, _ := k.Area.Journal().Get(s.UID)
	n.Expect([]any{e.Backup.Attempts, e.Backup.Failure}).To(HaveExactElements(1, ContainSubstring("broken")))
}

// fillDisk writes until that fails.
func fillDisk(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	return err
}
