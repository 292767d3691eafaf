package server

import (
	"regexp"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// maxName is the most that a name of a workspace or of a snapshot, or of a namespace, may have, in bytes.
const maxName = 63

// label is a name of a namespace, name one of an object; id is one of a snapshot in the store.
var (
	label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	name  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	id    = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]{0,199}$`)
)

// workspaceRequest is about one workspace.
type workspaceRequest interface {
	GetNamespace() string
	GetName() string
}

func validWorkspace(r workspaceRequest) error {
	if err := validNamespace(r.GetNamespace()); err != nil {
		return err
	}
	return validName("name", r.GetName())
}

func validNamespace(text string) error {
	if len(text) > maxName || !label.MatchString(text) {
		return refuse("namespace: must be the name of a namespace, 1 to %d small letters, digits and inner hyphens, not %q", maxName, clip(text))
	}
	return nil
}

func validName(field, text string) error {
	if len(text) > maxName || !name.MatchString(text) {
		return refuse("%s: must have 1 to %d small letters, digits, inner hyphens and dots, not %q", field, maxName, clip(text))
	}
	return nil
}

// sourceRequest is about one backup.
type sourceRequest interface {
	workspaceRequest
	GetBackup() string
	GetSnapshotId() string
}

func validSource(r sourceRequest) error {
	if err := validWorkspace(r); err != nil {
		return err
	}
	switch backup, snapshot := r.GetBackup(), r.GetSnapshotId(); {
	case backup != "" && snapshot != "":
		return refuse("backup and snapshot_id: name one of them, or none for the newest complete backup")
	case backup != "":
		return validBackup("backup", backup)
	case snapshot != "" && !id.MatchString(snapshot):
		return refuse("snapshot_id: must be the id of a snapshot, status.snapshotID of its object, not %q", clip(snapshot))
	}
	return nil
}

func validBackup(field, text string) error {
	if n, err := history.ParseName(text); err != nil || n.IsClaim() {
		return refuse("%s: must be the name of a backup, 7.2 for example, not %q", field, clip(text))
	}
	return nil
}

// cleanPath returns a path within a backup as the archive has it.
func cleanPath(raw []byte) (string, error) {
	const longest, longestName = 1 << 14, 255
	path := strings.Trim(string(raw), "/")
	if len(path) > longest {
		return "", refuse("path: must have at most %d bytes, not %d", longest, len(path))
	}
	if path == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || len(part) > longestName || strings.ContainsRune(part, 0) {
			return "", refuse("path: must be one from the workspace's root, without \".\" and \"..\", not %q", clip(path))
		}
	}
	return path, nil
}

// pageSize is how many are returned.
func pageSize(wanted int32, most int) (int, error) {
	if wanted < 0 || int(wanted) > most {
		return 0, refuse("page_size: must be from 0 to %d, not %d", most, wanted)
	}
	if wanted == 0 {
		return most, nil
	}
	return int(wanted), nil
}
