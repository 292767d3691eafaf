package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// Backup has a backup made, and tells how it gets on.
func (s *service) Backup(r *daemonv1.BackupRequest, stream grpc.ServerStreamingServer[daemonv1.BackupResponse]) error {
	ctx := stream.Context()
	ws, err := s.find(ctx, r)
	if err == nil {
		err = s.savable(ws)
	}
	if err != nil {
		return err
	}
	request, err := s.Engine.RequestBackup(ctx, ws)
	if err != nil {
		return err
	}
	defer request.Leave()
	b := &backup{service: s, request: request, ws: ws, stream: stream}
	if entry, ok := s.Engine.Entry(string(ws.UID)); ok {
		b.files, b.bytes = entry.Backup.Files, entry.Backup.Bytes
	}
	if err := b.follow(ctx); err != nil {
		return err
	}
	newest, unchanged, err := request.Result()
	if err != nil {
		return err
	}
	return stream.Send(&daemonv1.BackupResponse{
		Phase: daemonv1.BackupPhase_BACKUP_PHASE_DONE, FilesDone: newest.Files, FilesExpected: newest.Files, BytesDone: newest.Bytes, BytesExpected: newest.Bytes,
		Backup: madeOf(newest), Unchanged: unchanged, Problem: clean(newest.Problem),
	})
}

// savable says why no backup can be made of a workspace now; nil if one can.
func (s *service) savable(ws *v1.Workspace) error {
	switch {
	case !ready(ws):
		return status.Errorf(codes.FailedPrecondition, "workspace %s/%s has nothing to back up now, it is not ready: %s", ws.Namespace, ws.Name, standing(ws))
	case ws.Status.NodeName != s.Node:
		return status.Errorf(codes.FailedPrecondition, "workspace %s/%s is on node %q: ask there", ws.Namespace, ws.Name, ws.Status.NodeName)
	default:
		return nil
	}
}

// backup is one whose progress somebody follows.
type backup struct {
	*service
	request BackupRequest
	ws      *v1.Workspace
	stream  grpc.ServerStreamingServer[daemonv1.BackupResponse]
	// Files and bytes of the backup before.
	files, bytes int64
	sent         *daemonv1.BackupResponse
}

// follow tells how the backup gets on until it has ended.
func (b *backup) follow(ctx context.Context) error {
	look := time.NewTicker(b.pauses.progress)
	defer look.Stop()
	for {
		running, err := b.tell()
		if err != nil {
			return err
		}
		select {
		case <-b.request.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
		if err := b.stillWaits(ctx); err != nil && !running && !closed(b.request.Done()) {
			return err
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tell sends what has changed since the last message.
func (b *backup) tell() (running bool, err error) {
	p, running := b.request.Progress()
	m := &daemonv1.BackupResponse{
		Phase: daemonv1.BackupPhase_BACKUP_PHASE_QUEUED, FilesExpected: b.files, BytesExpected: b.bytes,
	}
	if running { // what a job that has just ended has done is not known any more
		m.Phase = daemonv1.BackupPhase_BACKUP_PHASE_RUNNING
		m.FilesDone, m.BytesDone = max(p.FilesDone, b.sent.GetFilesDone()), max(p.BytesDone, b.sent.GetBytesDone())
	}
	if proto.Equal(m, b.sent) {
		return running, nil
	}
	b.sent = m
	return running, b.stream.Send(m)
}

// stillWaits says why a backup that has not been started will not be.
func (b *backup) stillWaits(ctx context.Context) error {
	ws, err := b.cached(ctx, b.ws)
	if err != nil {
		return err
	}
	if ws.UID != b.ws.UID || ws.Status.Claim != b.ws.Status.Claim {
		return status.Errorf(codes.Aborted, "workspace %s/%s is another one than before: call again", ws.Namespace, ws.Name)
	}
	return b.savable(ws)
}
