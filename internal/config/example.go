package config

// Example returns a valid configuration with every key set.
func Example() Config {
	c := Default()
	c.Content.WorkingArea = "/var/lib/ws-daemon"
	c.Storage = exampleStorage()
	c.Volumes.Classes = map[string]Class{
		"default": {Driver: DriverDirectory, Path: "/var/lib/ws-daemon/volumes/default", AllowUnlimited: true},
		"limited": {Driver: DriverQuota, Path: "/mnt/workspaces/volumes", Projects: &Projects{First: 200_000, Last: 299_999}},
	}
	c.CSI.Socket = "/var/lib/kubelet/plugins/workspace.wsdaemon.dev/csi.sock"
	return c
}
