// Package v1 holds the objects of ws-daemon: Workspace, Snapshot and WorkspaceNode.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
// +groupName=workspace.wsdaemon.dev
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the API group and version of all objects in this package.
	GroupVersion = schema.GroupVersion{Group: "workspace.wsdaemon.dev", Version: "v1"}

	// SchemeGroupVersion is the name that the generated apply configurations know GroupVersion by.
	SchemeGroupVersion = GroupVersion

	// SchemeBuilder collects the functions that add these types to a scheme.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the types of this group version to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&Workspace{}, &WorkspaceList{},
		&Snapshot{}, &SnapshotList{},
		&WorkspaceNode{}, &WorkspaceNodeList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
