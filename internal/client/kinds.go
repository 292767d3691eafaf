package client

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/duration"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

// Look is how things are printed, and when.
type Look struct {
	Out    io.Writer
	Format Format
	// Namespaces has a column for them.
	Namespaces bool
	// Now is what ages count from.
	Now func() time.Time
}

// age is how long ago something was, as kubectl writes it.
func (l Look) age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return duration.HumanDuration(l.Now().Sub(t.AsTime()))
}

// Workspaces prints workspaces as `kubectl get workspaces` does.
func (l Look) Workspaces() *Printer[*daemonv1.Workspace] {
	return l.workspaces().printer(l.Out, l.Format)
}

func (l Look) workspaces() kind[*daemonv1.Workspace] {
	type ws = *daemonv1.Workspace
	columns := []column[ws]{
		{heading: "NAME", of: ws.GetName},
		{heading: "READY", of: ready},
		{heading: "STATUS", of: ws.GetReason},
		{heading: "NODE", of: ws.GetHolder},
		{heading: "SIZE", of: func(w ws) string { return some(w.GetVolume().GetSizeBytes()) }},
		{heading: "USED", of: func(w ws) string { return some(w.GetVolume().GetUsedBytes()) }},
		{heading: "LAST BACKUP", of: func(w ws) string { return l.age(w.GetBackups().GetLatest().GetTime()) }},
		{heading: "AGE", of: func(w ws) string { return l.age(w.GetCreateTime()) }},
		{heading: "MESSAGE", of: ws.GetMessage, wide: true},
	}
	if l.Namespaces {
		columns = append([]column[ws]{{heading: "NAMESPACE", of: ws.GetNamespace}}, columns...)
	}
	return kind[ws]{columns: columns, name: func(w ws) string { return "workspace/" + w.GetName() }}
}

func ready(w *daemonv1.Workspace) string {
	switch {
	case w.GetReason() == "":
		return ""
	case w.GetReady():
		return "True"
	default:
		return "False"
	}
}

// some is a size that is 0 if it is not known.
func some(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return progress.Bytes(bytes)
}

// Events prints changes of workspaces: as rows with what has changed, or a JSON object a line.
func (l Look) Events() *Printer[*daemonv1.WatchResponse] {
	type event = *daemonv1.WatchResponse
	of := l.workspaces()
	columns := make([]column[event], 0, len(of.columns)+1)
	columns = append(columns, column[event]{heading: "EVENT", of: func(e event) string { return constant(e.GetEvent().Descriptor(), e.GetEvent().Number()) }})
	for _, c := range of.columns {
		columns = append(columns, column[event]{heading: c.heading, wide: c.wide, of: func(e event) string { return c.of(e.GetWorkspace()) }})
	}
	return kind[event]{columns: columns, name: func(e event) string { return of.name(e.GetWorkspace()) }}.printer(l.Out, l.Format)
}

// Backups prints backups of one workspace.
func (l Look) Backups() *Printer[*daemonv1.Backup] {
	type backup = *daemonv1.Backup
	known := func(of func(backup) string) func(backup) string {
		return func(b backup) string {
			if b.GetDamage() != "" {
				return ""
			}
			return of(b)
		}
	}
	return kind[backup]{name: backup.GetName, columns: []column[backup]{
		{heading: "NAME", of: backup.GetName},
		{heading: "STATUS", of: backupStatus},
		{heading: "FILES", of: known(func(b backup) string { return strconv.FormatInt(b.GetFiles(), 10) })},
		{heading: "SIZE", of: known(func(b backup) string { return progress.Bytes(b.GetBytes()) })},
		{heading: "STORED", of: known(func(b backup) string { return progress.Bytes(b.GetStoredBytes()) })},
		{heading: "NODE", of: backup.GetNode},
		{heading: "AGE", of: func(b backup) string { return l.age(b.GetTime()) }},
		{heading: "UNREADABLE", wide: true, of: known(func(b backup) string { return strconv.FormatInt(b.GetUnreadable(), 10) })},
		{heading: "TIME", wide: true, of: func(b backup) string { return date(b.GetTime()) }},
		{heading: "DAMAGE", wide: true, of: backup.GetDamage},
	}}.printer(l.Out, l.Format)
}

func backupStatus(b *daemonv1.Backup) string {
	switch {
	case b.GetDamage() != "":
		return "Damaged"
	case b.GetComplete():
		return "Complete"
	default:
		return "Incomplete"
	}
}

func date(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// Snapshots prints snapshots.
func (l Look) Snapshots() *Printer[*daemonv1.Snapshot] {
	type snapshot = *daemonv1.Snapshot
	return kind[snapshot]{name: func(s snapshot) string { return "snapshot/" + s.GetName() }, columns: []column[snapshot]{
		{heading: "NAME", of: snapshot.GetName},
		{heading: "WORKSPACE", of: snapshot.GetWorkspace},
		{heading: "BACKUP", of: snapshot.GetBackup},
		{heading: "FILES", of: func(s snapshot) string { return strconv.FormatInt(s.GetFiles(), 10) }},
		{heading: "SIZE", of: func(s snapshot) string { return progress.Bytes(s.GetBytes()) }},
		{heading: "AGE", of: func(s snapshot) string { return l.age(s.GetTime()) }},
		{heading: "ID", of: snapshot.GetId},
	}}.printer(l.Out, l.Format)
}

// Usages prints what the workspace of a name takes.
func (l Look) Usages(name string) *Printer[*daemonv1.UsageResponse] {
	type usage = *daemonv1.UsageResponse
	return kind[usage]{name: func(usage) string { return "workspace/" + name }, columns: []column[usage]{
		{heading: "NAME", of: func(usage) string { return name }},
		{heading: "SIZE", of: func(u usage) string { return some(u.GetSizeBytes()) }},
		{heading: "USED", of: func(u usage) string { return progress.Bytes(u.GetUsedBytes()) }},
		{heading: "USE%", of: func(u usage) string { return percent(u.GetUsedBytes(), u.GetSizeBytes()) }},
		{heading: "INODES", of: func(u usage) string { return number(u.GetSizeInodes()) }},
		{heading: "IUSED", of: func(u usage) string { return strconv.FormatInt(u.GetUsedInodes(), 10) }},
		{heading: "IUSE%", of: func(u usage) string { return percent(u.GetUsedInodes(), u.GetSizeInodes()) }},
		{heading: "LIMITED", of: limited},
		{heading: "BACKUPS", of: func(u usage) string { return strconv.Itoa(int(u.GetBackups())) }},
		{heading: "UNSAVED", of: func(u usage) string { return l.age(u.GetUnsavedSince()) }},
		{heading: "MEASURED", wide: true, of: func(u usage) string { return l.age(u.GetMeasureTime()) }},
		{heading: "ESCAPED", wide: true, of: usage.GetEscaped},
	}}.printer(l.Out, l.Format)
}

func limited(u *daemonv1.UsageResponse) string {
	switch {
	case u.GetEscaped() != "":
		return "Escaped"
	case u.GetLimited():
		return "True"
	default:
		return "False"
	}
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// percent is rounded up, as df does it: what is not empty never looks so.
func percent(part, whole int64) string {
	if whole <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", int64((float64(part)*100+float64(whole)-1)/float64(whole)))
}
