package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SnapshotSpec names the workspace to keep a picture of.
type SnapshotSpec struct {
	// workspaceName is the workspace, of the same namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="workspaceName cannot change"
	WorkspaceName string `json:"workspaceName"`

	// nodeName is the node whose daemon makes the snapshot: the workspace's status.nodeName while a node holds it, else its
	// spec.nodeName. Where there is a cluster controller it fills in what is left empty.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName,omitempty"`

	// deletionPolicy says what happens to the stored snapshot when this object is deleted.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// SnapshotStatus is what the daemon reports.
type SnapshotStatus struct {
	// observedGeneration is the generation of the spec that this status answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// snapshotID names the snapshot in the store. It is set before the first byte is stored and never changes.
	// +optional
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="snapshotID never changes"
	SnapshotID string `json:"snapshotID,omitempty"`

	// backup that was pinned.
	// +optional
	Backup BackupName `json:"backup,omitempty"`

	// time of the pinned backup.
	// +optional
	Time metav1.Time `json:"time,omitzero"`

	// files in it.
	// +optional
	Files int64 `json:"files,omitempty"`

	// bytes of content in it.
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// operation is what the daemon is doing, or has last failed to do.
	// +optional
	Operation *OperationStatus `json:"operation,omitempty"`

	// conditions of the snapshot: Ready, Stalled where no retry helps, and NodeGone.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Snapshot is a picture of a workspace's content that is kept until its object, or a person, removes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=wssnap,categories=wsdaemon
// +kubebuilder:selectablefield:JSONPath=.spec.nodeName
// +kubebuilder:selectablefield:JSONPath=.spec.workspaceName
// +kubebuilder:printcolumn:name="Workspace",type=string,JSONPath=`.spec.workspaceName`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Bytes",type=integer,JSONPath=`.status.bytes`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="ID",type=string,priority=1,JSONPath=`.status.snapshotID`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a snapshot has at most 63 characters"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.status) || !has(oldSelf.status.snapshotID) || (has(self.status) && has(self.status.snapshotID))",message="snapshotID never changes"
type Snapshot struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec names the workspace to keep a picture of.
	Spec SnapshotSpec `json:"spec"`

	// status is what the daemon reports.
	// +optional
	Status SnapshotStatus `json:"status,omitzero"`
}

// SnapshotList is a list of snapshots.
//
// +kubebuilder:object:root=true
type SnapshotList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Snapshot `json:"items"`
}
