package v1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WorkspaceStatus is what the daemon of the node reports.
type WorkspaceStatus struct {
	// observedGeneration is the generation of the spec that this status answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// nodeName is the node that holds the content. It is set before anything is created there, and cleared when the content
	// is safe elsewhere and released.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`

	// nodeUID is the UID of that Node object, empty where there is none.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	NodeUID string `json:"nodeUID,omitempty"`

	// areaID is the identity of that node's working area: another one means another disk.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	AreaID string `json:"areaID,omitempty"`

	// claim grows with every take-over of the workspace by a node.
	// +optional
	Claim int64 `json:"claim,omitempty"`

	// volume is where the content lies and how much it takes.
	// +optional
	Volume *VolumeStatus `json:"volume,omitempty"`

	// content says what the workspace was filled from.
	// +optional
	Content *ContentStatus `json:"content,omitempty"`

	// backup is the state of the backups.
	// +optional
	Backup *BackupStatus `json:"backup,omitempty"`

	// restore echoes the last honoured request to go back in time.
	// +optional
	Restore *RestoreStatus `json:"restore,omitempty"`

	// operation is what the daemon is doing, or has last failed to do.
	// +optional
	Operation *OperationStatus `json:"operation,omitempty"`

	// git is the state of the working copy.
	// +optional
	Git *GitStatus `json:"git,omitempty"`

	// conditions of the workspace; types and reasons are listed in the API reference.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// VolumeStatus is where the content lies and how much it takes.
type VolumeStatus struct {
	// path of the content on the node; absent while users must not use it.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Path string `json:"path,omitempty"`

	// driver that made the volume.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Driver string `json:"driver,omitempty"`

	// size is the limit in force; absent where the driver cannot limit.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`

	// used is the number of bytes the content takes.
	// +optional
	Used *resource.Quantity `json:"used,omitempty"`

	// inodesUsed is the number of files and directories.
	// +optional
	InodesUsed int64 `json:"inodesUsed,omitempty"`
}

// ContentSource is what a workspace was filled from.
// +kubebuilder:validation:Enum=Empty;Git;Backup;Snapshot;Adopted;Prebuild;Download;Composite
type ContentSource string

const (
	// SourceEmpty is an empty start.
	SourceEmpty ContentSource = "Empty"
	// SourceGit is a clone.
	SourceGit ContentSource = "Git"
	// SourceBackup is the newest backup, or the one that spec.restore names.
	SourceBackup ContentSource = "Backup"
	// SourceSnapshot is a snapshot.
	SourceSnapshot ContentSource = "Snapshot"
	// SourcePrebuild is a snapshot whose repositories were brought up to date.
	SourcePrebuild ContentSource = "Prebuild"
	// SourceDownload is a file that was fetched.
	SourceDownload ContentSource = "Download"
	// SourceComposite is several of these.
	SourceComposite ContentSource = "Composite"
	// SourceAdopted is content of an older claim that lay on the node and equalled the newest backup.
	SourceAdopted ContentSource = "Adopted"
)

// ContentStatus says what the workspace was filled from.
type ContentStatus struct {
	// claim under which the content was made ready.
	// +optional
	Claim int64 `json:"claim,omitempty"`

	// source of the content.
	// +optional
	Source ContentSource `json:"source,omitempty"`

	// backup that was restored or adopted, if any.
	// +optional
	Backup BackupName `json:"backup,omitempty"`

	// snapshotID that was restored, if any.
	// +optional
	// +kubebuilder:validation:MaxLength=200
	SnapshotID string `json:"snapshotID,omitempty"`

	// files that were written.
	// +optional
	Files int64 `json:"files,omitempty"`

	// bytes that were written.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// duration of the work.
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`

	// steps of the initializer, in order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Steps []InitializerReport `json:"steps,omitempty"`
}

// InitializerReport says what one step of an initializer did.
type InitializerReport struct {
	// source is the kind of step.
	Source ContentSource `json:"source"`

	// from is the URL, or the id of the snapshot.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	From string `json:"from,omitempty"`

	// commit that was checked out, if any.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Commit string `json:"commit,omitempty"`

	// files that were written.
	// +optional
	Files int64 `json:"files,omitempty"`

	// bytes that were written.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// duration of the step.
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`

	// message says what else is worth knowing: that a prebuild was missing, for example.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// BackupStatus is the state of the backups.
type BackupStatus struct {
	// latest is the newest backup that this daemon wrote or restored.
	// +optional
	Latest *BackupRecord `json:"latest,omitempty"`

	// checkedAt is when the content was last found equal to latest; for a tree under constant change, when latest was taken.
	// +optional
	CheckedAt *metav1.Time `json:"checkedAt,omitempty"`

	// oldest is the oldest backup that can be restored.
	// +optional
	Oldest BackupName `json:"oldest,omitempty"`

	// count is the number of backups that can be restored.
	// +optional
	Count int32 `json:"count,omitempty"`

	// trigger is the last spec.backup.trigger that was honoured.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Trigger string `json:"trigger,omitempty"`

	// attempts is the number of failures in a row.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// failingSince is when the first of these failures was.
	// +optional
	FailingSince *metav1.Time `json:"failingSince,omitempty"`

	// nextAttempt is when a failed backup is tried again.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}

// BackupRecord is one backup.
type BackupRecord struct {
	// name of the backup.
	Name BackupName `json:"name"`

	// hash of its commit: it tells two backups of one name apart, should a store ever go back in time.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash,omitempty"`

	// time it was committed.
	// +optional
	Time metav1.Time `json:"time,omitzero"`

	// files in it.
	// +optional
	Files int64 `json:"files,omitempty"`

	// bytes of content in it.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// uploadedBytes is what was sent to the store.
	// +optional
	UploadedBytes int64 `json:"uploadedBytes,omitempty"`

	// duration of the backup.
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`
}

// RestoreStatus echoes a request to go back in time.
type RestoreStatus struct {
	// request that was honoured.
	// +kubebuilder:validation:MaxLength=128
	Request string `json:"request"`

	// backup that the next start restores, or the last one did.
	Backup BackupName `json:"backup"`

	// pinned is the backup that was newest then; it is kept as the snapshot pinnedSnapshotID.
	// +optional
	Pinned BackupName `json:"pinned,omitempty"`

	// pinnedSnapshotID names the snapshot of what was newest.
	// +optional
	// +kubebuilder:validation:MaxLength=200
	PinnedSnapshotID string `json:"pinnedSnapshotID,omitempty"`

	// claim that restored it; absent until the workspace starts.
	// +optional
	Claim int64 `json:"claim,omitempty"`
}

// OperationType is a kind of work.
// +kubebuilder:validation:Enum=Claim;Provision;Initialize;Restore;Adopt;Backup;FinalBackup;Discard;Rewind;Bury;Remove;Save
type OperationType string

const (
	// OperationClaim asks the store for the newest claim and takes the next.
	OperationClaim OperationType = "Claim"
	// OperationProvision makes or grows the volume.
	OperationProvision OperationType = "Provision"
	// OperationInitialize fills a new workspace.
	OperationInitialize OperationType = "Initialize"
	// OperationRestore brings back a backup.
	OperationRestore OperationType = "Restore"
	// OperationAdopt compares content found on the node with the newest backup.
	OperationAdopt OperationType = "Adopt"
	// OperationBackup is a periodic or triggered backup.
	OperationBackup OperationType = "Backup"
	// OperationFinalBackup is the backup that lets the content go.
	OperationFinalBackup OperationType = "FinalBackup"
	// OperationDiscard takes content away that is given up.
	OperationDiscard OperationType = "Discard"
	// OperationRewind pins what is newest before going back in time.
	OperationRewind OperationType = "Rewind"
	// OperationBury writes the tombstone of a deleted workspace.
	OperationBury OperationType = "Bury"
	// OperationRemove removes released content from the node.
	OperationRemove OperationType = "Remove"
	// OperationSave keeps content whose owner moved on as a stray snapshot.
	OperationSave OperationType = "Save"
)

// OperationStatus is what the daemon is doing, or has last failed to do.
type OperationStatus struct {
	// type of work.
	Type OperationType `json:"type"`

	// startedAt is when this work began, over all its attempts.
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`

	// bytesDone so far.
	// +optional
	BytesDone int64 `json:"bytesDone,omitempty"`

	// bytesTotal, where it is known.
	// +optional
	BytesTotal int64 `json:"bytesTotal,omitempty"`

	// filesDone so far.
	// +optional
	FilesDone int64 `json:"filesDone,omitempty"`

	// filesTotal, where it is known.
	// +optional
	FilesTotal int64 `json:"filesTotal,omitempty"`

	// attempts that failed in a row.
	// +optional
	Attempts int32 `json:"attempts,omitempty"`

	// lastFailure says what went wrong.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	LastFailure string `json:"lastFailure,omitempty"`

	// nextAttempt is when it is tried again.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}

// GitStatus is the state of the working copy that the initializer made, or of the one at the content's root. It is looked at with each
// backup, the final one included. Names that are not UTF-8 have a replacement character in place of what is not.
type GitStatus struct {
	// branch that is checked out; empty when HEAD is detached.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Branch string `json:"branch,omitempty"`

	// commit that is checked out.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Commit string `json:"commit,omitempty"`

	// uncommittedFiles, at most 100 of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=4096
	UncommittedFiles []string `json:"uncommittedFiles,omitempty"`

	// totalUncommittedFiles is how many there are.
	// +optional
	TotalUncommittedFiles int64 `json:"totalUncommittedFiles,omitempty"`

	// untrackedFiles, at most 100 of them: those that git neither knows nor ignores.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=4096
	UntrackedFiles []string `json:"untrackedFiles,omitempty"`

	// totalUntrackedFiles is how many there are.
	// +optional
	TotalUntrackedFiles int64 `json:"totalUntrackedFiles,omitempty"`

	// unpushedCommits, at most 100 of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=1024
	UnpushedCommits []string `json:"unpushedCommits,omitempty"`

	// totalUnpushedCommits is how many there are.
	// +optional
	TotalUnpushedCommits int64 `json:"totalUnpushedCommits,omitempty"`
}
