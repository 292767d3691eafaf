package cmd

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/csi"
)

// eventDriverUnavailable says that pods cannot get workspaces as volumes.
const eventDriverUnavailable = "DriverUnavailable"

// servePods lets pods give workspaces back from the first second on, and get them once the daemon is connected to the cluster. It
// returns what ends that, which comes last: a daemon that stops still unmounts.
func (d *daemon) servePods(ctx context.Context) (stop func()) {
	if !d.cfg.CSI.Enabled() {
		return func() {}
	}
	logger := d.log.WithName("csi")
	node := &csi.Node{Name: d.node, KubeletDir: d.cfg.CSI.KubeletDir, Keeper: d.keeper, Patience: csi.Patience, Log: logger}
	d.pods = csi.NewDriver(node, d.cfg.CSI.Socket, d.cfg.CSI.RegistrationDir, buildVersion())
	if err := node.Recover(ctx); err != nil {
		logger.Error(err, "mounts of workspaces cannot be compared with the journal")
	}
	return alongside(context.WithoutCancel(ctx), d.pods.Run)
}

// connectPods returns what lets the driver know the objects, and the reconcilers of pods that go.
func (d *daemon) connectPods(mgr ctrl.Manager, workspaces *controllers.WorkspaceReconciler, events nodeEvents) func(context.Context) error {
	if d.pods == nil {
		return func(context.Context) error { return nil }
	}
	d.pods.Node.OnEnd(workspaces.Unused)
	d.pods.OnFailure(func(message string) { events.tell(corev1.EventTypeWarning, eventDriverUnavailable, "Serve", message) })
	return func(ctx context.Context) error {
		return d.pods.Node.Connect(ctx, csi.Cluster{
			Cache: mgr.GetCache(), Server: mgr.GetAPIReader(), Watch: csi.Watch(mgr.GetCache()), Usable: workspaces.Usable,
		})
	}
}
