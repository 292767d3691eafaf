package v1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WorkspaceNodeStatus is the state of a node as a home of workspaces.
type WorkspaceNodeStatus struct {
	// areaID is the identity of the node's working area.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	AreaID string `json:"areaID,omitempty"`

	// summary says in a line how much room each class has, or why it cannot be used.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Summary string `json:"summary,omitempty"`

	// workingArea is the disk of the daemon's own files. Without room there, no class takes new workspaces.
	// +optional
	WorkingArea *Space `json:"workingArea,omitempty"`

	// classes are the volume classes that the node offers.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Classes []ClassCapacity `json:"classes,omitempty"`

	// conditions: Ready, DiskPressure, SafeToRemove, Stalled, Sandboxed, StoreAvailable, ConfigReloadPending.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Resource is what a disk can have too little of.
//
// +kubebuilder:validation:Enum=Bytes;Inodes;ThinData;ThinMetadata
type Resource string

// The resources of disks.
const (
	// ResourceBytes are those of the disk.
	ResourceBytes Resource = "Bytes"
	// ResourceInodes are those of the filesystem.
	ResourceInodes Resource = "Inodes"
	// ResourceThinData are the data of a thin pool.
	ResourceThinData Resource = "ThinData"
	// ResourceThinMetadata are the metadata of a thin pool.
	ResourceThinMetadata Resource = "ThinMetadata"
)

// Space is what a disk has.
type Space struct {
	// size of the disk.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`

	// free is what is left to be written, a spare reserve subtracted.
	// +optional
	Free *resource.Quantity `json:"free,omitempty"`

	// inodes that the disk has; absent where it does not count them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Inodes *int64 `json:"inodes,omitempty"`

	// freeInodes are those that are left, a spare reserve subtracted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreeInodes *int64 `json:"freeInodes,omitempty"`

	// pressure names what there is too little of. It is named from the moment when the limit is reached until well below it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4
	Pressure []Resource `json:"pressure,omitempty"`
}

// ClassCapacity is the space of one volume class.
type ClassCapacity struct {
	// name of the class.
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// driver of the class.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Driver string `json:"driver,omitempty"`

	// reason why the class cannot be used, VolumeGroupNotFound for example; absent if it can.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Reason string `json:"reason,omitempty"`

	// message tells more about the reason, and what to do.
	// +optional
	// +kubebuilder:validation:MaxLength=2560
	Message string `json:"message,omitempty"`

	Space `json:",inline"`

	// allocated is the sum of the sizes of its volumes.
	// +optional
	Allocated *resource.Quantity `json:"allocated,omitempty"`

	// volumes is how many there are.
	// +optional
	Volumes int32 `json:"volumes,omitempty"`

	// thinDataPercent is how full a thin pool's data is.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	ThinDataPercent *int32 `json:"thinDataPercent,omitempty"`

	// thinMetadataPercent is how full a thin pool's metadata is.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	ThinMetadataPercent *int32 `json:"thinMetadataPercent,omitempty"`
}

// WorkspaceNode is a node as a home of workspaces. The daemon of the node writes it; it has no spec, and its name is the
// node's name.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=wsnode,categories=wsdaemon
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Disk Pressure",type=string,JSONPath=`.status.conditions[?(@.type=="DiskPressure")].status`
// +kubebuilder:printcolumn:name="Safe To Remove",type=string,JSONPath=`.status.conditions[?(@.type=="SafeToRemove")].status`
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.conditions[?(@.type=="SafeToRemove")].reason`
// +kubebuilder:printcolumn:name="Room",type=string,JSONPath=`.status.summary`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Pressure",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="DiskPressure")].message`
type WorkspaceNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// status is the state of the node.
	// +optional
	Status WorkspaceNodeStatus `json:"status,omitzero"`
}

// WorkspaceNodeList is a list of nodes.
//
// +kubebuilder:object:root=true
type WorkspaceNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []WorkspaceNode `json:"items"`
}
