package server

import (
	"context"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// Usage tells what a workspace takes.
func (s *service) Usage(ctx context.Context, r *daemonv1.UsageRequest) (*daemonv1.UsageResponse, error) {
	ws, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	u := &daemonv1.UsageResponse{}
	if v := ws.Status.Volume; v != nil {
		u.SizeBytes, u.Limited = quantity(v.Size), v.Size != nil
	}
	if inodes := ws.Spec.Volume.Inodes; inodes != nil && u.Limited {
		u.SizeInodes = *inodes
	}
	if b := ws.Status.Backup; b != nil {
		u.Backups = b.Count
	}
	entry, known := s.Engine.Entry(string(ws.UID))
	if known && u.Limited { // the disk counts it
		if entry, err = s.Engine.Measure(ctx, subject(ws)); err != nil {
			return nil, err
		}
	}
	u.UsedBytes, u.UsedInodes, u.MeasureTime = entry.Usage.Bytes, entry.Usage.Inodes, timeOf(entry.Usage.At)
	u.Escaped = clean(entry.Usage.Escaped)
	if known && entry.Released == "" {
		u.UnsavedSince = timeOf(entry.Backup.CheckedAt)
	}
	return u, nil
}
