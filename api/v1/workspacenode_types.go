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

	// classes are the volume classes that the node offers.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Classes []ClassCapacity `json:"classes,omitempty"`

	// conditions: Ready, DiskPressure, SafeToRemove, StoreAvailable, ConfigReloadPending.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
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

	// size of the space.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`

	// allocated is the sum of the sizes of its volumes.
	// +optional
	Allocated *resource.Quantity `json:"allocated,omitempty"`

	// free is what is left to be written, a spare reserve subtracted.
	// +optional
	Free *resource.Quantity `json:"free,omitempty"`

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
// +kubebuilder:printcolumn:name="Safe To Remove",type=string,JSONPath=`.status.conditions[?(@.type=="SafeToRemove")].status`
// +kubebuilder:printcolumn:name="Free",type=string,JSONPath=`.status.classes[*].free`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
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
