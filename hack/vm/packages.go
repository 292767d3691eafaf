package vm

import "slices"

// buildTag is the build tag of tests that only the VM can run, longTag that of those that take long.
const (
	buildTag = "vm"
	longTag  = "long"
)

// Package is a Go package whose tests run in the VM.
type Package struct {
	// Path is relative to the repository.
	Path string
	// Tags has, for each test program that the tests themselves build with `go test -c -tags TAGS`, its tags. There is no
	// Go in the guest: the program of that name there gives them what was built here.
	Tags []string
	// Disks on which they run; nil for all.
	Disks []Disk
	// Cluster says that they need an API server, at what /vm/kubeconfig says, and the daemon, /vm/bin/ws-daemon.
	Cluster bool
}

func (p Package) runsOn(disk Disk) bool { return p.Disks == nil || slices.Contains(p.Disks, disk) }

// Packages gives the packages that `make vm-test` runs.
func Packages() []Package {
	return []Package{
		{Path: "internal/volume", Tags: []string{"faults"}},
		{Path: "internal/quota", Tags: []string{"faults"}, Disks: []Disk{XFS, Ext4}},
		{Path: "internal/lvm", Tags: []string{"faults"}, Disks: []Disk{LVM}},
		{Path: "test/volumes", Tags: []string{"faults"}, Cluster: true},
		{Path: "internal/content/archive"},
		{Path: "internal/content/archive/format"},
		{Path: "internal/content/store"},
	}
}
