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
	// +kubebuilder:default={}
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

// BackupSpec says when backups are made and which are kept.
type BackupSpec struct {
	// interval between periodic backups; some jitter is added. 0s turns them off. If absent, it is the one that the node's daemon
	// is configured with, 10m by default.
	// +optional
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
