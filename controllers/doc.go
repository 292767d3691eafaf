// Package controllers reconciles the objects of one node: it observes, decides, starts at most one job, and reports.
//
// A pass over a Workspace is an ordered list of steps (workspace_controller.go). Each step looks at one concern and says
// whether the pass ends there. Long work runs as a job in package jobs and wakes its object when it ends; what it did is
// read from the disk and the journal, not from memory. All conditions are computed in workspace_status.go and written
// once per pass. No file is touched, no program run and no connection opened here, except to the API server.
//
// What the API server is asked for is allowed by config/rbac/role.yaml, verb by verb.
package controllers
