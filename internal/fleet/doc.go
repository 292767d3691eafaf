// Package fleet is what one process does for a whole cluster: the leader of the replicas of `ws-daemon controller`.
//
// A daemon acts on the objects of its own node. When that node is gone nobody would: then objects that are being deleted would stay for
// ever, and nobody would say why the others do not get on. The controller says it, in a condition of its own, lets go what is being deleted,
// gives snapshots a node, and tends the store. It never moves a workspace: whether a node is really dead is for people, and those whom
// they trust, to say.
//
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=workspaces;snapshots,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=workspaces/status;snapshots/status,verbs=patch
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=workspacenodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch,namespace=ws-daemon-system
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=ws-daemon-system
package fleet
