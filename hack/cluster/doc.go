// Package cluster runs the control plane of a real Kubernetes (etcd and kube-apiserver, on request also
// kube-controller-manager) as child processes on this machine, for development and tests.
//
// The programs are found, or built once from hack/tools/kubernetes and kept outside the repository. Everything else a
// cluster consists of (data, keys, kubeconfigs, logs) lies in one directory.
//
// There are no nodes, no scheduler and no service accounts: nothing runs pods here.
package cluster
