// Package e2e tries the daemon as it is installed: its image, deployed by `make deploy` on nodes with real kubelets, and pods that use
// workspaces. The tests have the build tag e2e; `make e2e` runs them. On node-a, volumes are thin logical volumes, on node-b they are
// directories with a project quota.
package e2e
