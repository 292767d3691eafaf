// Package apply writes the status of objects. Several writers share an object, and several nodes a field owner, so each write says what it
// was computed from.
package apply

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Status writes all that an owner says in the status of an object, by server-side apply: what it said before and says no more goes. The
// write carries the UID and the version of o, from which fields were computed: without them a stale cache would overwrite another node's
// status, or make a deleted object anew. It returns the new version; a conflict means that o is to be read again.
func Status(ctx context.Context, c client.Client, o client.Object, fields map[string]any, owner client.FieldOwner) (version string, err error) {
	gvk, err := c.GroupVersionKindFor(o)
	if err != nil {
		return "", err
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": fields}}
	u.SetGroupVersionKind(gvk)
	u.SetNamespace(o.GetNamespace())
	u.SetName(o.GetName())
	u.SetUID(o.GetUID())
	u.SetResourceVersion(o.GetResourceVersion())
	err = c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), owner, client.ForceOwnership)
	return u.GetResourceVersion(), err
}
