// Package pods has the tests of pods that use workspaces by the CSI driver of a real daemon. The tests are the kubelet.
package pods
