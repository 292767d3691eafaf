package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

const (
	maxBackups = 100
	// fullMessage is how many bytes a message of a stream has, about.
	fullMessage = 128 << 10
)

// ListBackups returns a page of what the store has.
func (s *service) ListBackups(ctx context.Context, r *daemonv1.ListBackupsRequest) (*daemonv1.ListBackupsResponse, error) {
	size, err := pageSize(r.GetPageSize(), maxBackups)
	if err != nil {
		return nil, err
	}
	var before history.Name
	if text := r.GetPageToken(); text != "" {
		if err := validBackup("page_token", text); err != nil {
			return nil, err
		}
		if before, err = history.ParseName(text); err != nil {
			return nil, err
		}
	}
	stored, err := s.stored(ctx, r)
	if err != nil {
		if _, ok := errors.AsType[*content.AbsentError](err); ok {
			return &daemonv1.ListBackupsResponse{}, nil // nobody has stored anything in the namespace
		}
		return nil, err
	}
	backups, more, err := stored.Backups(ctx, before, size)
	if err != nil {
		return nil, err
	}
	page := &daemonv1.ListBackupsResponse{}
	for _, b := range backups {
		page.Backups = append(page.Backups, listedOf(b))
	}
	if more {
		page.NextPageToken = backups[len(backups)-1].Name.String()
	}
	return page, nil
}

// stored opens what the store has of a workspace that names this node.
func (s *service) stored(ctx context.Context, r workspaceRequest) (*content.Stored, error) {
	ws, err := s.find(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.Engine.Stored(ctx, subject(ws))
}

// place waits for one among those that read what may be large, and returns what gives it back.
func (s *service) place(ctx context.Context) (leave func(), err error) {
	exports := s.exports.Load()
	limited, cancel := context.WithTimeout(ctx, s.pauses.place)
	defer cancel()
	if err := exports.Acquire(limited, 1); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, status.Error(codes.ResourceExhausted, "as many exports and lists of files run as service.exports allows: try again later")
	}
	return func() { exports.Release(1) }, nil
}

// source is a backup that is looked into.
type source struct {
	stored *content.Stored
	commit history.Commit
}

// open finds the backup of a request, and a place to look into it.
func (s *service) open(ctx context.Context, r sourceRequest) (source, func(), error) {
	if err := validSource(r); err != nil {
		return source{}, nil, err
	}
	stored, err := s.stored(ctx, r)
	if err != nil {
		return source{}, nil, err
	}
	leave, err := s.place(ctx)
	if err != nil {
		return source{}, nil, err
	}
	c, err := stored.Find(ctx, r.GetBackup(), r.GetSnapshotId())
	if err != nil {
		leave()
		return source{}, nil, err
	}
	return source{stored, c}, leave, nil
}

// ListFiles sends what is in a backup.
func (s *service) ListFiles(r *daemonv1.ListFilesRequest, stream grpc.ServerStreamingServer[daemonv1.ListFilesResponse]) error {
	path, err := cleanPath(r.GetPath())
	if err != nil {
		return err
	}
	from, leave, err := s.open(stream.Context(), r)
	if err != nil {
		return err
	}
	defer leave()
	message, bytes := &daemonv1.ListFilesResponse{Backup: committedOf(from.commit)}, 0
	err = from.stored.Files(stream.Context(), from.commit, path, r.GetRecursive(), func(row archive.Row) error {
		file := fileOf(row)
		message.Files = append(message.Files, file)
		if bytes += proto.Size(file); bytes < fullMessage {
			return nil
		}
		full := message
		message, bytes = &daemonv1.ListFilesResponse{}, 0
		return stream.Send(full)
	})
	if _, ok := errors.AsType[*archive.PathError](err); ok {
		return status.Errorf(codes.NotFound, "backup %s of workspace %s/%s has no %q", from.commit.Name, r.GetNamespace(), r.GetName(), clip(path))
	}
	if err != nil {
		return err
	}
	return stream.Send(message)
}

// Export sends a backup as a tar.
func (s *service) Export(r *daemonv1.ExportRequest, stream grpc.ServerStreamingServer[daemonv1.ExportResponse]) error {
	from, leave, err := s.open(stream.Context(), r)
	if err != nil {
		return err
	}
	defer leave()
	if err := stream.Send(&daemonv1.ExportResponse{Backup: committedOf(from.commit)}); err != nil {
		return err
	}
	return from.stored.Export(stream.Context(), from.commit, sender{stream})
}

// sender makes messages of what is written.
type sender struct {
	stream grpc.ServerStreamingServer[daemonv1.ExportResponse]
}

// Write sends everything before it returns.
func (s sender) Write(data []byte) (int, error) {
	sent := 0
	for sent < len(data) {
		part := data[sent:min(sent+fullMessage, len(data))]
		if err := s.stream.Send(&daemonv1.ExportResponse{Data: part}); err != nil {
			return sent, err
		}
		sent += len(part)
	}
	return sent, nil
}
