package config

// Example returns a valid configuration with every key set.
func Example() Config {
	c := Default()
	c.Content.WorkingArea = "/var/lib/ws-daemon"
	c.Storage = exampleStorage()
	c.Service.Address = ":7443"
	c.Service.CertFile, c.Service.KeyFile = "/etc/ws-daemon-service/tls.crt", "/etc/ws-daemon-service/tls.key"
	c.Service.ClientCAFile = "/etc/ws-daemon-service/ca.crt"
	c.Service.Rights = []Right{
		{Subject: "URI=spiffe://cluster.local/ns/ws-system/sa/ws-manager", Methods: []string{Everything}, Namespaces: []string{Everything}},
		{Subject: "CN=team-a-dashboard", Methods: []string{"List", "Get", "Watch", "Usage"}, Namespaces: []string{"team-a"}},
	}
	c.Volumes.Classes = map[string]Class{
		"default": {Driver: DriverDirectory, Path: "/var/lib/ws-daemon/volumes/default", AllowUnlimited: true},
		"limited": {Driver: DriverQuota, Path: "/mnt/workspaces/volumes", Projects: &Projects{First: 200_000, Last: 299_999}},
	}
	c.CSI.Socket = "/var/lib/kubelet/plugins/workspace.wsdaemon.dev/csi.sock"
	return c
}
