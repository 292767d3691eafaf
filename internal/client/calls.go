package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
)

// List returns the workspaces of the node in a namespace, all of them if that is empty.
func (c *Client) List(ctx context.Context, namespace string) ([]*daemonv1.Workspace, error) {
	var all []*daemonv1.Workspace
	err := c.pages(ctx, func(token string) (string, error) {
		page, err := c.service.List(ctx, &daemonv1.ListRequest{Namespace: namespace, PageToken: token})
		all = append(all, page.GetWorkspaces()...)
		return page.GetNextPageToken(), err
	})
	return all, err
}

// Backups returns the backups of a workspace, the newest first: at most limit, unless that is 0.
func (c *Client) Backups(ctx context.Context, ws Ref, limit int) ([]*daemonv1.Backup, error) {
	var all []*daemonv1.Backup
	err := c.pages(ctx, func(token string) (string, error) {
		page, err := c.service.ListBackups(ctx, &daemonv1.ListBackupsRequest{Namespace: ws.Namespace, Name: ws.Name, PageToken: token})
		all = append(all, page.GetBackups()...)
		if limit > 0 && len(all) >= limit {
			all = all[:limit]
			return "", err
		}
		return page.GetNextPageToken(), err
	})
	return all, err
}

// pages asks for one page after the other.
func (c *Client) pages(ctx context.Context, next func(token string) (string, error)) error {
	token, err := next("")
	for err == nil && token != "" {
		token, err = next(token)
	}
	return c.explain(ctx, err)
}

// Get returns a workspace.
func (c *Client) Get(ctx context.Context, ws Ref) (*daemonv1.Workspace, error) {
	response, err := c.service.Get(ctx, &daemonv1.GetRequest{Namespace: ws.Namespace, Name: ws.Name})
	return response.GetWorkspace(), c.explain(ctx, err)
}

// Usage returns what a workspace takes.
func (c *Client) Usage(ctx context.Context, ws Ref) (*daemonv1.UsageResponse, error) {
	response, err := c.service.Usage(ctx, &daemonv1.UsageRequest{Namespace: ws.Namespace, Name: ws.Name})
	return response, c.explain(ctx, err)
}

// Snapshot makes a snapshot of a workspace, or waits for the one of that name. If remove is true, what is stored goes with the object.
func (c *Client) Snapshot(ctx context.Context, ws Ref, name string, remove bool) (*daemonv1.Snapshot, error) {
	policy := daemonv1.DeletionPolicy_DELETION_POLICY_RETAIN
	if remove {
		policy = daemonv1.DeletionPolicy_DELETION_POLICY_DELETE
	}
	response, err := c.service.Snapshot(ctx, &daemonv1.SnapshotRequest{
		Namespace: ws.Namespace, Name: ws.Name, SnapshotName: name, DeletionPolicy: policy,
	})
	return response.GetSnapshot(), c.explain(ctx, err)
}

// Backup makes a backup, and calls tell with each report of how it stands; the last one, which is returned, has the backup.
func (c *Client) Backup(ctx context.Context, ws Ref, tell func(*daemonv1.BackupResponse)) (*daemonv1.BackupResponse, error) {
	stream, err := c.service.Backup(ctx, &daemonv1.BackupRequest{Namespace: ws.Namespace, Name: ws.Name})
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	var last *daemonv1.BackupResponse
	err = each(ctx, c, stream, func(r *daemonv1.BackupResponse) error {
		last = r
		tell(r)
		return nil
	})
	if err == nil && last.GetPhase() != daemonv1.BackupPhase_BACKUP_PHASE_DONE {
		err = &Error{CodeFailed, "the daemon ended the call before the backup was done: look at what ws-daemon client backups lists"}
	}
	return last, err
}

// Source names a backup to look into: that of a name, or of a snapshot by its id, or the newest complete one.
type Source struct{ Backup, Snapshot string }

// Files calls do with what is in a backup, at a path or, if recursive, anywhere below it.
func (c *Client) Files(ctx context.Context, ws Ref, from Source, path string, recursive bool, do func(*daemonv1.File) error) error {
	stream, err := c.service.ListFiles(ctx, &daemonv1.ListFilesRequest{
		Namespace: ws.Namespace, Name: ws.Name, Backup: from.Backup, SnapshotId: from.Snapshot, Path: []byte(path), Recursive: recursive,
	})
	if err != nil {
		return c.explain(ctx, err)
	}
	return each(ctx, c, stream, func(r *daemonv1.ListFilesResponse) error {
		for _, f := range r.GetFiles() {
			if err := do(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// Export writes a backup to out as a tar, and calls begin with what the backup is. What was written is whole only if there is no error.
func (c *Client) Export(ctx context.Context, ws Ref, from Source, out io.Writer, begin func(*daemonv1.Backup)) error {
	stream, err := c.service.Export(ctx, &daemonv1.ExportRequest{Namespace: ws.Namespace, Name: ws.Name, Backup: from.Backup, SnapshotId: from.Snapshot})
	if err != nil {
		return c.explain(ctx, err)
	}
	return each(ctx, c, stream, func(r *daemonv1.ExportResponse) error {
		if r.GetBackup() != nil {
			begin(r.GetBackup())
		}
		_, err := out.Write(r.GetData())
		return err
	})
}

// each calls do with everything that a stream has, until its end or the first error of do.
func each[T any](ctx context.Context, c *Client, stream grpc.ServerStreamingClient[T], do func(*T) error) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.explain(ctx, err)
		}
		if err := do(message); err != nil {
			return err
		}
	}
}
