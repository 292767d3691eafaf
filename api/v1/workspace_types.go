package v1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WorkspaceState is what the user wants of a workspace.
// +kubebuilder:validation:Enum=Running;Stopped
type WorkspaceState string

const (
	// StateRunning wants the content on the node, usable by pods.
	StateRunning WorkspaceState = "Running"
	// StateStopped wants the content backed up and gone from the node.
	StateStopped WorkspaceState = "Stopped"
)

// StopPolicy says what happens to unsaved changes when a workspace stops.
// +kubebuilder:validation:Enum=Backup;Discard
type StopPolicy string

const (
	// StopBackup takes a final backup before the content is removed.
	StopBackup StopPolicy = "Backup"
	// StopDiscard removes the content without a final backup.
	StopDiscard StopPolicy = "Discard"
)

// DeletionPolicy says what happens to stored data when its object is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

const (
	// DeletionRetain keeps the stored data.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDelete removes the stored data some days after the object.
	DeletionDelete DeletionPolicy = "Delete"
)

// BackupName names a backup of a workspace: the claim under which it was written and a number, as in "7.40".
// +kubebuilder:validation:Pattern=`^[0-9]{1,18}\.[0-9]{1,18}$`
// +kubebuilder:validation:MaxLength=40
type BackupName string

// WorkspaceSpec is what the user wants.
// +kubebuilder:validation:XValidation:rule=`!has(self.fencedNode) || self.fencedNode == "" || !has(self.nodeName) || self.fencedNode != self.nodeName`,message="fencedNode must differ from nodeName: a node cannot hold content and be fenced off it",fieldPath=".fencedNode"
type WorkspaceSpec struct {
	// nodeName is the node that shall hold the content. It may change only while no node holds the content
	// (status.nodeName is empty), or when fencedNode names the node that still does.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`

	// fencedNode says "that node is dead, I vouch for it": nodeName may then change although status.nodeName still names
	// it. What a fenced node saved but could not hand over is kept as a stray snapshot when it comes back.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	FencedNode string `json:"fencedNode,omitempty"`

	// state is Running to have the content usable on the node, Stopped to have it backed up and released.
	// +optional
	// +kubebuilder:default=Running
	State WorkspaceState `json:"state,omitempty"`

	// owner is the user and group of freshly initialized content. A restore brings back the owners it saved.
	// +optional
	// +kubebuilder:default={uid: 33333, gid: 33333}
	Owner Owner `json:"owner,omitzero"`

	// volume is the space the content may take.
	Volume VolumeSpec `json:"volume"`

	// initializer fills the workspace the first time. It is used only when the workspace has never had a backup.
	// +optional
	// +kubebuilder:default={empty: {}}
	Initializer Initializer `json:"initializer,omitzero"`

	// backup says when backups are made and which are kept.
	// +optional
	// +kubebuilder:default={interval: "10m"}
	Backup BackupSpec `json:"backup,omitzero"`

	// restore goes back in time: the next start restores the named backup instead of the newest one.
	// +optional
	Restore *RestoreSpec `json:"restore,omitempty"`

	// limits are enforced on the pods that use the workspace.
	// +optional
	Limits *Limits `json:"limits,omitempty"`

	// deletionPolicy says what happens to the stored backups when this object is deleted. Delete also gives up unsaved
	// changes: there is no final backup.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// Owner is a user and a group by number.
type Owner struct {
	// uid is the user id.
	// +optional
	// +kubebuilder:default=33333
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967294
	UID int64 `json:"uid"`

	// gid is the group id.
	// +optional
	// +kubebuilder:default=33333
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967294
	GID int64 `json:"gid"`
}

// VolumeSpec is the space of a workspace.
// +kubebuilder:validation:XValidation:rule="quantity(string(self.size)).isGreaterThan(quantity('0'))",message="size must be greater than zero",fieldPath=".size"
// +kubebuilder:validation:XValidation:rule="quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",message="size may grow but never shrink",fieldPath=".size"
// +kubebuilder:validation:XValidation:rule="!has(self.inodes) || !has(oldSelf.inodes) || self.inodes >= oldSelf.inodes",message="inodes may grow but never shrink",fieldPath=".inodes"
// +kubebuilder:validation:XValidation:rule="self.class == oldSelf.class",message="class cannot change; create another workspace from a snapshot of this one",fieldPath=".class"
type VolumeSpec struct {
	// class names a volume class of the daemon's configuration.
	// +optional
	// +kubebuilder:default=default
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Class string `json:"class,omitempty"`

	// size is the hard limit of the bytes the content may take. It may grow, never shrink.
	Size resource.Quantity `json:"size"`

	// inodes is the hard limit of the number of files and directories; none if absent. It may grow, never shrink.
	// +optional
	// +kubebuilder:validation:Minimum=100
	Inodes *int64 `json:"inodes,omitempty"`
}

// Initializer is one way to fill a new workspace.
// +kubebuilder:validation:ExactlyOneOf=empty;git;backup;snapshot
type Initializer struct {
	// empty starts with an empty directory.
	// +optional
	Empty *EmptyInitializer `json:"empty,omitempty"`

	// git clones a repository.
	// +optional
	Git *GitInitializer `json:"git,omitempty"`

	// backup demands that there is a backup of this workspace: none is an error, not an empty start.
	// +optional
	Backup *BackupInitializer `json:"backup,omitempty"`

	// snapshot starts from a snapshot of any workspace of the same domain.
	// +optional
	Snapshot *SnapshotInitializer `json:"snapshot,omitempty"`
}

// EmptyInitializer has no settings.
type EmptyInitializer struct{}

// BackupInitializer has no settings.
type BackupInitializer struct{}

// GitInitializer clones a repository.
type GitInitializer struct {
	// url is where the repository is: https, or another scheme that the daemon's configuration allows. It must not hold
	// credentials; they belong in a Secret that authSecretRef names.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^(https?|ssh)://[^\s/?#@]+(/[^\s?#]*)?$`
	URL string `json:"url"`

	// target is what is checked out. Without one, the branch that the remote's HEAD names.
	// +optional
	Target *GitTarget `json:"target,omitempty"`

	// checkoutLocation is the directory of the working copy, below the content's root; the root itself if empty.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && self.split('/').all(p, p != '..' && p != '.git')",message="checkoutLocation must be a relative path without '..' or '.git'"
	CheckoutLocation string `json:"checkoutLocation,omitempty"`

	// authSecretRef names a Secret of this namespace with the keys "username" and "password", or "token".
	// +optional
	AuthSecretRef *SecretReference `json:"authSecretRef,omitempty"`
}

// GitTarget is what is checked out.
// +kubebuilder:validation:ExactlyOneOf=branch;localBranch;commit
type GitTarget struct {
	// branch is a branch of the remote. It must exist.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^-\s~^:?*\[\\][^\s~^:?*\[\\]*$`
	Branch string `json:"branch,omitempty"`

	// localBranch is a new branch, made from the remote's HEAD.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^-\s~^:?*\[\\][^\s~^:?*\[\\]*$`
	LocalBranch string `json:"localBranch,omitempty"`

	// commit is a full commit id; HEAD is detached.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^([0-9a-f]{40}|[0-9a-f]{64})$`
	Commit string `json:"commit,omitempty"`
}

// SecretReference names a Secret of the same namespace.
type SecretReference struct {
	// name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9][-a-z0-9.]*$`
	Name string `json:"name"`
}

// SnapshotInitializer names a snapshot.
// +kubebuilder:validation:ExactlyOneOf=name;id
type SnapshotInitializer struct {
	// name of a Snapshot object of this namespace.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// id of a snapshot in the store (status.snapshotID), stray snapshots included.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9][-a-zA-Z0-9._]*$`
	ID string `json:"id,omitempty"`
}

// BackupSpec says when backups are made and which are kept.
type BackupSpec struct {
	// interval between periodic backups; some jitter is added. 0s turns them off.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) == duration('0s') || (duration(self) >= duration('1s') && duration(self) <= duration('168h'))",message="interval must be 0s (off) or between 1s and 168h"
	Interval *metav1.Duration `json:"interval,omitempty"`

	// onStop says whether a final backup is taken when the workspace stops.
	// +optional
	// +kubebuilder:default=Backup
	OnStop StopPolicy `json:"onStop,omitempty"`

	// keep says which backups are kept. The newest complete one is never removed.
	// +optional
	// +kubebuilder:default={last: 5, daily: 7}
	Keep Keep `json:"keep,omitzero"`

	// trigger starts a backup at once whenever its text changes; status.backup.trigger echoes it when the backup is done.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Trigger string `json:"trigger,omitempty"`
}

// Keep says which complete backups are kept.
type Keep struct {
	// last is the number of newest backups to keep.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Last int32 `json:"last,omitempty"`

	// daily is the number of days (UTC, by the store's clock) of which the newest backup is kept.
	// +optional
	// +kubebuilder:default=7
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Daily *int32 `json:"daily,omitempty"`
}

// RestoreSpec goes back in time.
type RestoreSpec struct {
	// backup to restore at the next start.
	Backup BackupName `json:"backup"`

	// request is any text; each new one is honoured once, while the workspace is stopped. The backup that was newest then
	// stays pinned.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Request string `json:"request"`
}

// Limits of the processes that use a workspace.
// +kubebuilder:validation:MinProperties=1
type Limits struct {
	// cpu bandwidth.
	// +optional
	CPU *CPULimits `json:"cpu,omitempty"`

	// pids is the number of processes and threads.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Pids *int64 `json:"pids,omitempty"`

	// io bandwidth of the node's disks.
	// +optional
	IO *IOLimits `json:"io,omitempty"`

	// network limits.
	// +optional
	Network *NetworkLimits `json:"network,omitempty"`
}

// CPULimits is a guaranteed and a burst bandwidth.
type CPULimits struct {
	// min is what the workspace always gets.
	// +optional
	Min *resource.Quantity `json:"min,omitempty"`

	// burst is what it may take while the node has it to spare.
	// +optional
	Burst *resource.Quantity `json:"burst,omitempty"`
}

// IOLimits are disk bandwidths.
type IOLimits struct {
	// readBps is bytes read per second.
	// +optional
	ReadBps *resource.Quantity `json:"readBps,omitempty"`

	// writeBps is bytes written per second.
	// +optional
	WriteBps *resource.Quantity `json:"writeBps,omitempty"`

	// readIOPS is reads per second.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ReadIOPS *int64 `json:"readIOPS,omitempty"`

	// writeIOPS is writes per second.
	// +optional
	// +kubebuilder:validation:Minimum=1
	WriteIOPS *int64 `json:"writeIOPS,omitempty"`
}

// NetworkLimits are limits of the pods' network.
type NetworkLimits struct {
	// connectionsPerMinute is the number of new outgoing connections a minute.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ConnectionsPerMinute *int64 `json:"connectionsPerMinute,omitempty"`
}

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
// +kubebuilder:validation:Enum=Empty;Git;Backup;Snapshot;Adopted
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

// GitStatus is the state of the working copy.
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

// Workspace is a directory tree on the local disk of a node, backed up to an object store.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ws,categories=wsdaemon
// +kubebuilder:selectablefield:JSONPath=.spec.nodeName
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.nodeName`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.spec.volume.size`
// +kubebuilder:printcolumn:name="Used",type=string,JSONPath=`.status.volume.used`
// +kubebuilder:printcolumn:name="Last Backup",type=date,JSONPath=`.status.backup.latest.time`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a workspace has at most 63 characters"
// +kubebuilder:validation:XValidation:rule=`(has(self.spec.nodeName) ? self.spec.nodeName : "") == (has(oldSelf.spec.nodeName) ? oldSelf.spec.nodeName : "") || !has(self.status) || !has(self.status.nodeName) || self.status.nodeName == "" || (has(self.spec.fencedNode) && self.status.nodeName == self.spec.fencedNode) || (has(self.spec.nodeName) && self.status.nodeName == self.spec.nodeName)`,message="spec.nodeName may change only when no node holds the content: set spec.state to Stopped and wait until status.nodeName is empty, or name the dead node in spec.fencedNode"
// +kubebuilder:validation:XValidation:rule=`!has(self.status) || !has(self.status.nodeName) || self.status.nodeName == "" || (has(self.spec.nodeName) && self.status.nodeName == self.spec.nodeName) || (has(oldSelf.status) && has(oldSelf.status.nodeName) && self.status.nodeName == oldSelf.status.nodeName)`,message="status.nodeName may change only to spec.nodeName or to empty"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.claim) || (has(self.status) && has(self.status.claim) && self.status.claim >= oldSelf.status.claim)",message="status.claim never goes back"
type Workspace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the user wants.
	Spec WorkspaceSpec `json:"spec"`

	// status is what the daemon of the node reports.
	// +optional
	Status WorkspaceStatus `json:"status,omitzero"`
}

// WorkspaceList is a list of workspaces.
//
// +kubebuilder:object:root=true
type WorkspaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Workspace `json:"items"`
}
