package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/jobs"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// backup asks for one, and returns how to read what comes.
func (w *world) backup(ctx context.Context, name string) func() string {
	w.t.Helper()
	stream, err := w.local().Backup(ctx, &daemonv1.BackupRequest{Namespace: "team-a", Name: name})
	w.Expect(err).NotTo(HaveOccurred())
	return func() string { return next(stream) }
}

// next is the next message of a backup, in words.
func next(stream grpc.ServerStreamingClient[daemonv1.BackupResponse]) string {
	m, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return "end"
	}
	if err != nil {
		return outcome(err)
	}
	phase := strings.TrimPrefix(m.GetPhase().String(), "BACKUP_PHASE_")
	text := fmt.Sprintf("%s %d/%d files, %d/%d bytes", phase, m.GetFilesDone(), m.GetFilesExpected(), m.GetBytesDone(), m.GetBytesExpected())
	if b := m.GetBackup(); b != nil {
		text += fmt.Sprintf(": %s of %d bytes, %d stored, in %s, complete %t, unchanged %t", b.GetName(), b.GetBytes(), b.GetStoredBytes(),
			b.GetDuration().AsDuration(), b.GetComplete(), m.GetUnchanged())
	}
	return text + m.GetProblem()
}

func TestABackupTellsHowItGetsOn(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	w.engine.entries["team-a-web"] = state.Entry{Backup: state.Backup{Name: "3.1", Files: 10, Bytes: 1000}}
	next := w.backup(t.Context(), "web")
	w.Expect(next()).To(Equal("QUEUED 0/10 files, 0/1000 bytes"))
	request := w.request(0)
	request.run(jobs.Progress{FilesDone: 1, BytesDone: 100})
	w.Expect(next()).To(Equal("RUNNING 1/10 files, 100/1000 bytes"))
	request.run(jobs.Progress{FilesDone: 12, BytesDone: 1200})
	w.Expect(next()).To(Equal("RUNNING 12/10 files, 1200/1000 bytes"))
	request.run(jobs.Progress{}) // it has just ended
	request.end(state.Backup{Name: "3.2", Files: 12, Bytes: 1200, Uploaded: 300, Duration: time.Second, Complete: true}, false, nil)
	w.Expect(next()).To(Equal("DONE 12/12 files, 1200/1200 bytes: 3.2 of 1200 bytes, 300 stored, in 1s, complete true, unchanged false"))
	w.Expect(next()).To(Equal("end"))
	w.Eventually(request.leavers).Should(Equal(1))

	next = w.backup(t.Context(), "web")
	w.request(1).end(state.Backup{Name: "3.2", Files: 12, Bytes: 1200, Complete: false, Problem: "; secret could not be read"}, true, nil)
	w.Expect(next()).To(Equal("QUEUED 0/10 files, 0/1000 bytes"))
	w.Expect(next()).To(Equal("DONE 12/12 files, 1200/1200 bytes: 3.2 of 1200 bytes, 0 stored, in 0s, complete false, unchanged true; secret could not be read"))
}

func TestABackupThatFailsSaysWhy(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	for i, c := range []struct {
		err  error
		want string
	}{
		{&content.StoreError{Store: "file:///s", Err: errBroken}, "Unavailable: object store file:///s: broken"},
		{&content.FencedError{Err: history.ErrFenced, Stray: "stray.web"}, "FailedPrecondition: fenced by a newer owner; unsaved work was kept as snapshot stray.web"},
		{&content.IncompleteError{Backup: "3.2", Files: []string{"a"}, Count: 1}, "FailedPrecondition: backup 3.2 is incomplete, 1 files could not be read: a"},
		{fmt.Errorf("%w: after 1h", jobs.ErrTimeout), "Aborted: job timed out: after 1h"},
		{jobs.ErrCancelled, "Aborted: job cancelled"},
		{content.ErrNotOurs, "FailedPrecondition: content is not ours"},
	} {
		next := w.backup(t.Context(), "web")
		w.request(i).end(state.Backup{}, false, c.err)
		w.Expect(next()).To(Equal("QUEUED 0/0 files, 0/0 bytes"))
		w.Expect(next()).To(Equal(c.want))
	}
}

// No backup is asked for of what has none to make, and nobody waits for one that will not be made.
func TestABackupNeedsAWorkspaceThatIsReady(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-a", "slow", not("Restoring", "half of it")),
		workspace("team-a", "stopping", func(ws *v1.Workspace) { ws.Spec.State = v1.StateStopped }),
		workspace("team-a", "moving", func(ws *v1.Workspace) { ws.Status.NodeName = "node-b" }),
	).start()
	w.Expect(w.backup(t.Context(), "slow")()).To(Equal("FailedPrecondition: workspace team-a/slow has nothing to back up now, it is not ready: Restoring: half of it"))
	w.Expect(w.backup(t.Context(), "stopping")()).To(HavePrefix("FailedPrecondition: workspace team-a/stopping has nothing to back up now, it is not ready: Running"))
	w.Expect(w.backup(t.Context(), "moving")()).To(Equal(`FailedPrecondition: workspace team-a/moving is on node "node-b": ask there`))
	w.Expect(w.engine.requests).To(BeEmpty())

	next := w.backup(t.Context(), "web")
	w.Expect(next()).To(Equal("QUEUED 0/0 files, 0/0 bytes"))
	w.change(workspace("team-a", "web", not("Paused", "by a person")))
	w.Expect(next()).To(Equal("FailedPrecondition: workspace team-a/web has nothing to back up now, it is not ready: Paused: by a person"))
	w.Eventually(w.request(0).leavers).Should(Equal(1))

	w.change(workspace("team-a", "web"))
	next = w.backup(t.Context(), "web")
	w.Expect(next()).To(Equal("QUEUED 0/0 files, 0/0 bytes"))
	w.change(workspace("team-a", "web", func(ws *v1.Workspace) { ws.Status.Claim = 4 }))
	w.Expect(next()).To(Equal("Aborted: workspace team-a/web is another one than before: call again"))
}

// Whoever leaves withdraws his wish; what runs is the reconciler's.
func TestLeavingABackup(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	ctx, cancel := context.WithCancel(t.Context())
	next := w.backup(ctx, "web")
	w.Expect(next()).To(Equal("QUEUED 0/0 files, 0/0 bytes"))
	cancel()
	w.Expect(next()).To(Equal("Canceled: context canceled"))
	w.Eventually(w.request(0).leavers).Should(Equal(1))
}
