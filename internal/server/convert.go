package server

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// workspaceOf says of an object what callers see of it.
func workspaceOf(ws *v1.Workspace) *daemonv1.Workspace {
	w := &daemonv1.Workspace{
		Namespace: ws.Namespace, Name: ws.Name, Uid: string(ws.UID), State: stateOf(ws.Spec.State),
		Holder: ws.Status.NodeName, Claim: ws.Status.Claim,
		CreateTime: timeOf(ws.CreationTimestamp.Time), DeleteTime: timeAt(ws.DeletionTimestamp),
		Volume: volumeOf(ws), Content: contentOf(ws.Status.Content), Backups: backupsOf(ws.Status.Backup),
		Operation: operationOf(ws.Status.Operation), Git: gitOf(ws.Status.Git),
	}
	for _, c := range ws.Status.Conditions {
		if c.Type == v1.ConditionReady {
			w.Ready, w.Reason, w.Message = c.Status == metav1.ConditionTrue, c.Reason, c.Message
		}
		w.Conditions = append(w.Conditions, &daemonv1.Condition{
			Type: c.Type, Status: statusOf(c.Status), Reason: c.Reason, Message: c.Message, TransitionTime: timeOf(c.LastTransitionTime.Time),
		})
	}
	slices.SortFunc(w.Conditions, func(a, b *daemonv1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return w
}

func stateOf(s v1.WorkspaceState) daemonv1.WorkspaceState {
	if s == v1.StateStopped {
		return daemonv1.WorkspaceState_WORKSPACE_STATE_STOPPED
	}
	return daemonv1.WorkspaceState_WORKSPACE_STATE_RUNNING
}

func statusOf(s metav1.ConditionStatus) daemonv1.ConditionStatus {
	switch s {
	case metav1.ConditionTrue:
		return daemonv1.ConditionStatus_CONDITION_STATUS_TRUE
	case metav1.ConditionFalse:
		return daemonv1.ConditionStatus_CONDITION_STATUS_FALSE
	default:
		return daemonv1.ConditionStatus_CONDITION_STATUS_UNKNOWN
	}
}

func volumeOf(ws *v1.Workspace) *daemonv1.Volume {
	v := &daemonv1.Volume{Class: ws.Spec.Volume.Class}
	if ws.Spec.Volume.Inodes != nil {
		v.SizeInodes = *ws.Spec.Volume.Inodes
	}
	if s := ws.Status.Volume; s != nil {
		v.Driver, v.Path, v.UsedInodes = s.Driver, s.Path, s.InodesUsed
		v.SizeBytes, v.UsedBytes = quantity(s.Size), quantity(s.Used)
	}
	return v
}

func contentOf(s *v1.ContentStatus) *daemonv1.Content {
	if s == nil {
		return nil
	}
	return &daemonv1.Content{
		Source: string(s.Source), Backup: string(s.Backup), SnapshotId: s.SnapshotID, Files: s.Files, Bytes: s.Bytes, Duration: durationAt(s.Duration),
	}
}

func backupsOf(s *v1.BackupStatus) *daemonv1.BackupState {
	if s == nil {
		return nil
	}
	b := &daemonv1.BackupState{
		CheckTime: timeAt(s.CheckedAt), Oldest: string(s.Oldest), Count: s.Count, Attempts: s.Attempts,
		FailingSince: timeAt(s.FailingSince), RetryTime: timeAt(s.NextAttempt),
	}
	if l := s.Latest; l != nil {
		b.Latest = &daemonv1.Backup{
			Name: string(l.Name), Time: timeOf(l.Time.Time), Files: l.Files, Bytes: l.Bytes, StoredBytes: l.UploadedBytes,
			Duration: durationAt(l.Duration), Complete: true, // others do not become the latest
		}
	}
	return b
}

func operationOf(s *v1.OperationStatus) *daemonv1.Operation {
	if s == nil {
		return nil
	}
	return &daemonv1.Operation{
		Type: string(s.Type), StartTime: timeAt(s.StartedAt), FilesDone: s.FilesDone, FilesTotal: s.FilesTotal,
		BytesDone: s.BytesDone, BytesTotal: s.BytesTotal, Attempts: s.Attempts, Failure: s.LastFailure, RetryTime: timeAt(s.NextAttempt),
	}
}

func gitOf(s *v1.GitStatus) *daemonv1.Git {
	if s == nil {
		return nil
	}
	return &daemonv1.Git{
		Branch: s.Branch, Commit: s.Commit, Uncommitted: s.TotalUncommittedFiles, Untracked: s.TotalUntrackedFiles, Unpushed: s.TotalUnpushedCommits,
	}
}

func snapshotOf(s *v1.Snapshot) *daemonv1.Snapshot {
	return &daemonv1.Snapshot{
		Namespace: s.Namespace, Name: s.Name, Id: s.Status.SnapshotID, Workspace: s.Spec.WorkspaceName, Backup: string(s.Status.Backup),
		Time: timeOf(s.Status.Time.Time), Files: s.Status.Files, Bytes: s.Status.Bytes,
	}
}

// madeOf is a backup as the journal has it.
func madeOf(b state.Backup) *daemonv1.Backup {
	return &daemonv1.Backup{
		Name: b.Name, Time: timeOf(b.Time), Files: b.Files, Bytes: b.Bytes, StoredBytes: b.Uploaded, Duration: durationpb.New(b.Duration), Complete: b.Complete,
	}
}

// committedOf is a backup as the store has it.
func committedOf(c history.Commit) *daemonv1.Backup {
	return &daemonv1.Backup{
		Name: c.Name.String(), Time: timeOf(c.Created), Files: c.Tree.Files, Directories: c.Tree.Dirs, Bytes: c.Tree.Bytes, StoredBytes: c.Stored,
		Node: c.Owner.Node, Complete: c.Complete(), Unreadable: c.Tree.UnreadableCount,
	}
}

// listedOf is a backup of a list, whose time is the store's.
func listedOf(b content.StoredBackup) *daemonv1.Backup {
	if b.Damage != "" {
		return &daemonv1.Backup{Name: b.Name.String(), Time: timeOf(b.Time), Damage: clean(b.Damage)}
	}
	listed := committedOf(b.Commit)
	listed.Time = timeOf(b.Time)
	return listed
}

func fileOf(r archive.Row) *daemonv1.File {
	f := &daemonv1.File{
		Path: []byte(r.Path), Type: typeOf(r), Mode: uint32(r.Mode), Uid: r.UID, Gid: r.GID, Size: r.Size,
		ModifyTime: modified(r.Meta), Unreadable: r.Flags&format.FlagUnreadable != 0,
	}
	if r.Extra != nil && r.Extra.Target != "" {
		f.Target = []byte(r.Extra.Target)
	}
	return f
}

// modified is a file's time, within what a timestamp can be: anybody can give his files any.
func modified(m format.Meta) *timestamppb.Timestamp {
	const year1, year9999 = -62135596800, 253402300799
	return &timestamppb.Timestamp{Seconds: min(max(m.Sec, year1), year9999), Nanos: int32(m.Nsec)}
}

func typeOf(r archive.Row) daemonv1.FileType {
	if r.Dir {
		return daemonv1.FileType_FILE_TYPE_DIRECTORY
	}
	switch r.Kind {
	case format.KindFile:
		return daemonv1.FileType_FILE_TYPE_REGULAR
	case format.KindSymlink:
		return daemonv1.FileType_FILE_TYPE_SYMLINK
	case format.KindFIFO:
		return daemonv1.FileType_FILE_TYPE_FIFO
	case format.KindWhiteout:
		return daemonv1.FileType_FILE_TYPE_WHITEOUT
	default:
		return daemonv1.FileType_FILE_TYPE_UNSPECIFIED
	}
}

func quantity(q *resource.Quantity) int64 {
	if q == nil {
		return 0
	}
	return q.Value()
}

func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeAt(t *metav1.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timeOf(t.Time)
}

func durationAt(d *metav1.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(d.Duration)
}
