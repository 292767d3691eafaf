// Package csi gives the workspaces of a node to its pods, as inline volumes of the CSI driver that the kubelet finds on a socket.
//
// A volume is a bind mount of the content that users see. It is lent by the keeper (see content.Keeper.Lend): written down in the
// journal before it is mounted, and until after it is unmounted, so that a workspace that stops waits for the last of them. What
// publishes a volume waits, inside the kubelet's call, until the content is there; what unpublishes one needs neither the API server,
// nor the store, nor the object, for all that it needs to know is the path that it is given.
//
//	driver.go        the sockets: the driver's own, and the one by which the kubelet gets to know of it
//	node.go          the calls that concern volumes
//	request.go       what may be asked for
//	wait.go          waiting for a workspace, woken by the cache
//	decide.go        what an object says about whether a pod can have it
//	kubelet.go       mounts below the kubelet's directory, by descriptors
//	recover.go       what was mounted when the daemon started, and what is not any more
package csi
