package cmd

import (
	"os"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/lvm"
	"wsdaemon.dev/ws-daemon/internal/quota"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// newDriver returns the driver of a volume class, which lies at a path of its own or at the given one, which is made. So are mount
// points, which no disk is behind; any other path that is missing may be on a disk that is.
func newDriver(path string, class config.Class) (volume.Driver, error) {
	if class.Path != "" {
		path = class.Path
	}
	if class.Path == "" || class.Driver == config.DriverLVM {
		if err := os.MkdirAll(path, 0o711); err != nil { //nolint:gosec // pods reach their content below it
			return nil, err
		}
	}
	return newDriverAt(path, class)
}

func newDriverAt(path string, class config.Class) (volume.Driver, error) {
	switch class.Driver {
	case config.DriverQuota:
		return newQuota(path, class)
	case config.DriverLVM:
		return lvm.New(lvm.Class{
			Root: path, Group: class.VolumeGroup, Pool: class.ThinPool, Filesystem: class.Filesystem,
			Overcommit: class.Overcommits(), MinSize: int64(class.MinSize),
		})
	default:
		d, err := volume.NewDirectory(path)
		if err == nil && !class.Overcommits() {
			d.KeepWithinDisk()
		}
		return d, err
	}
}

func newQuota(path string, class config.Class) (volume.Driver, error) {
	ids := quota.DefaultRange()
	if class.Projects != nil {
		ids = quota.Range(*class.Projects)
	}
	d, err := quota.New(path, ids)
	if err == nil && !class.Overcommits() {
		d.KeepWithinDisk()
	}
	return d, err
}
