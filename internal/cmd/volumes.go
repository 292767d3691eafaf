package cmd

import (
	"os"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/quota"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// newDriver returns the driver of a volume class, which lies at a path of its own or at the given one, which is made.
func newDriver(path string, class config.Class) (volume.Driver, error) {
	if class.Path != "" {
		path = class.Path
	} else if err := os.MkdirAll(path, 0o711); err != nil { //nolint:gosec // pods reach their content below it
		return nil, err
	}
	if class.Driver != config.DriverQuota {
		return volume.NewDirectory(path)
	}
	ids := quota.DefaultRange()
	if class.Projects != nil {
		ids = quota.Range(*class.Projects)
	}
	return quota.New(path, ids)
}
