// Package nodes runs a Kubernetes cluster whose nodes are virtual machines with real kubelets and containerd, on this machine alone.
//
// The control plane runs outside ([wsdaemon.dev/ws-daemon/hack/cluster]): in the machines, without KVM, it would take minutes to start. Each
// node is a machine of [wsdaemon.dev/ws-daemon/hack/vm], whose root disk stays when its power is cut. Nodes and pods find this machine's
// loopback at 10.0.2.2, and the API server at its service's address as well; the API server finds kubelets through a proxy, since what
// addresses the nodes have means nothing outside. Pods of one node find each other; those of two do not.
//
//	c, err := nodes.Start(ctx, nodes.Options{Dir: dir, Images: []string{"shell.tar", "image.tar"}, Log: os.Stderr})
//	a, err := c.AddNode(ctx, "node-a", vm.LVM)     // its power is off
//	err = a.Start(ctx)                             // boots, and waits until the node is ready
//	out, err := a.Run(ctx, "lvs")                  // a script in the machine
//	a.PowerOff(); a.Reboot(ctx)                    // Reboot waits as Start does
//	c.Stop()
package nodes
