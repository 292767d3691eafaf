package cmd

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/server"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// newService makes the gRPC service of a daemon.
func (d *daemon) newService(mgr ctrl.Manager, workspaces *controllers.WorkspaceReconciler, events nodeEvents) *server.Server {
	return server.New(server.Options{
		Node: d.node, Config: d.cfg.Service, Client: mgr.GetClient(), Reader: mgr.GetAPIReader(),
		Informer: func(ctx context.Context) (cache.Informer, error) {
			return mgr.GetCache().GetInformer(ctx, &v1.Workspace{})
		},
		Engine: engine{workspaces}, Metrics: d.metrics, Log: d.log.WithName("service"),
		Tell: func(reason, message string) { events.tell(corev1.EventTypeWarning, reason, "Serve", message) },
	})
}

// engine is what the service may ask of the reconciler and of what that works with.
type engine struct {
	workspaces *controllers.WorkspaceReconciler
}

// RequestBackup has a backup made by the reconciler's next pass.
func (e engine) RequestBackup(ctx context.Context, ws *v1.Workspace) (server.BackupRequest, error) {
	return e.workspaces.RequestBackup(ctx, ws)
}

// Stored opens what the store has.
func (e engine) Stored(ctx context.Context, s content.Subject) (*content.Stored, error) {
	return e.workspaces.Keeper.Stored(ctx, s)
}

// Entry is what the journal says.
func (e engine) Entry(uid string) (state.Entry, bool) {
	return e.workspaces.Keeper.Area.Journal().Get(uid)
}

// Measure asks the disk.
func (e engine) Measure(ctx context.Context, s content.Subject) (state.Entry, error) {
	return e.workspaces.Keeper.Measure(ctx, s)
}
