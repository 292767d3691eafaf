package cluster

import (
	"fmt"
	"os"
)

// ServiceAddress is where pods look for the API server, on port 443: nodes have to lead them from there.
const ServiceAddress = "10.0.0.1"

// egress makes the API server ask a proxy for connections with nodes and pods.
const egress = `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: %q}}
`

// writeNodeKeys writes what the API server needs to talk with kubelets.
func (c *Cluster) writeNodeKeys() error {
	if !c.options.Nodes {
		return nil
	}
	client, err := c.ca.user("kube-apiserver-kubelet-client", []string{"system:masters"})
	if err != nil {
		return err
	}
	return writeFiles(map[string][]byte{
		c.path("kubelet-client.crt"): client.cert,
		c.path("kubelet-client.key"): client.key,
		c.path("egress.yaml"):        fmt.Appendf(nil, egress, c.options.NodeProxy),
	})
}

// nodeFlags are those of the API server that depend on whether there are nodes.
func (c *Cluster) nodeFlags() []string {
	if !c.options.Nodes {
		// Pods are objects here, nothing runs them: they need no token.
		return []string{"--disable-admission-plugins=ServiceAccount"}
	}
	return []string{
		"--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate=" + c.path("kubelet-client.crt"),
		"--kubelet-client-key=" + c.path("kubelet-client.key"),
		"--kubelet-certificate-authority=" + c.path("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--egress-selector-config-file=" + c.path("egress.yaml"),
	}
}

// managerFlags are those of the controller manager that depend on whether there are nodes.
func (c *Cluster) managerFlags() []string {
	if !c.options.Nodes {
		return []string{"--controllers=namespace-controller,garbage-collector-controller"}
	}
	return []string{
		"--root-ca-file=" + c.path("ca.crt"),
		"--service-account-private-key-file=" + c.path("service-account.key"),
	}
}

func (c *Cluster) startScheduler() error {
	if !c.options.Nodes {
		return nil
	}
	var err error
	c.scheduler, err = c.start(Scheduler, "--kubeconfig="+c.Kubeconfig(), "--leader-elect=false", "--secure-port=0")
	return err
}

// NodeFiles are what a kubelet is started with.
type NodeFiles struct {
	// Kubeconfig is that of the node, with the API server at 127.0.0.1.
	Kubeconfig string
	// CA is the cluster's certificate, Cert and Key are the kubelet's as a server.
	CA, Cert, Key string
}

// AddNode makes a node's credentials. Nothing but its kubelet's registration makes it a node.
func (c *Cluster) AddNode(name, address string) (NodeFiles, error) {
	kubeconfig, _, err := c.AddUser("system:node:"+name, "system:nodes")
	if err != nil {
		return NodeFiles{}, err
	}
	server, err := c.ca.server("system:node:"+name, []string{name}, address)
	if err != nil {
		return NodeFiles{}, err
	}
	f := NodeFiles{Kubeconfig: kubeconfig, CA: c.path("ca.crt"), Cert: c.path(name + ".crt"), Key: c.path(name + ".key")}
	return f, writeFiles(map[string][]byte{f.Cert: server.cert, f.Key: server.key})
}

// LogFiles are what the programs of the cluster have said so far.
func (c *Cluster) LogFiles() []string {
	var files []string
	for _, name := range []string{Etcd, APIServer, ControllerManager, Scheduler} {
		if _, err := os.Stat(c.path(name + ".log")); err == nil {
			files = append(files, c.path(name+".log"))
		}
	}
	return files
}
