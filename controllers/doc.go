// Package controllers reconciles the objects of one node: it observes, decides, starts at most one job, and reports.
//
// A pass over a Workspace is an ordered list of steps (workspace_controller.go). Each step looks at one concern and says
// whether the pass ends there. Long work runs as a job in package jobs and wakes its object when it ends; what it did is
// read from the disk and the journal, not from memory. All conditions are computed in workspace_status.go and written
// once per pass. No file is touched, no program run and no connection opened here, except to the API server.
package controllers

// Whoever wants to read the metrics from elsewhere is made known, and allowed to, by the API server.
//
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Whoever may ask the daemon's service for a snapshot gets one as everybody does: by an object. Admission lets a daemon create those of
// its own node only.
//
// +kubebuilder:rbac:groups=workspace.wsdaemon.dev,resources=snapshots,verbs=create
