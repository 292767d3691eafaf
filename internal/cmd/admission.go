package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// admission makes sure at the start that the working area, the cluster and this node belong together.
type admission struct {
	logger logr.Logger
	reader client.Reader
	area   *state.Area
	node   string
	// version asks the API server which one it is; nil: it is new enough.
	version func(context.Context) (string, error)
}

// wait asks the API server which cluster it is, as long as it takes: the node's content is in use meanwhile. It returns the
// cluster's identity, and an error if the working area belongs to another one.
func (a admission) wait(ctx context.Context) (string, error) {
	var cluster string
	err := wait.PollUntilContextCancel(ctx, 2*time.Second, true, func(ctx context.Context) (bool, error) {
		var err error
		if a.version != nil {
			err = modern(ctx, a.version, "nothing of its objects is done, and what lies on the node is only backed up")
		}
		if err == nil {
			cluster, err = clusterUID(ctx, a.reader)
		}
		if err != nil {
			a.logger.Error(err, "waiting for the API server")
			return false, nil
		}
		if err := a.admit(ctx, cluster); err != nil {
			if final := (*refusal)(nil); errors.As(err, &final) {
				return false, err
			}
			a.logger.Error(err, "waiting for the API server")
			return false, nil
		}
		return true, nil
	})
	return cluster, err
}

// modern makes sure that the API server selects objects by field, and says in tokens which node they are of. An older one may be
// upgraded at any time; meanwhile says what is not done until then.
func modern(ctx context.Context, ask func(context.Context) (string, error), meanwhile string) error {
	text, err := ask(ctx)
	if err != nil {
		return err
	}
	v, err := apiversion.ParseGeneric(text)
	if err != nil {
		return fmt.Errorf("the API server's version: %w", err)
	}
	if v.LessThan(oldestAPI()) {
		return fmt.Errorf("the API server is %s, and ws-daemon needs %s or newer: upgrade the control plane of the cluster; until then %s",
			text, oldestAPI(), meanwhile)
	}
	return nil
}

// oldestAPI is the first version of Kubernetes in which both are settled.
func oldestAPI() *apiversion.Version { return apiversion.MajorMinor(1, 32) }

// errNotNew says that an area without identity is not the one of a new node.
var errNotNew = errors.New("the working area has no identity, but this node is not a new one")

// refusal is an error that waiting does not mend.
type refusal struct{ message string }

func (r *refusal) Error() string { return r.message }

func (a admission) admit(ctx context.Context, cluster string) error {
	id, err := a.area.Identity()
	if err == nil {
		return a.compare(id, cluster)
	}
	if !errors.Is(err, state.ErrNoIdentity) {
		return &refusal{err.Error()}
	}
	evidence, err := a.evidence(ctx)
	if err != nil {
		return err
	}
	if evidence != "" {
		a.logger.Error(errNotNew, "mount the disk of the working area; if the disk is really a new one, run `ws-daemon area init`",
			"area", a.area.Dir(), "because", evidence)
		return nil // the reconcilers say so on every object
	}
	return a.area.Init(state.Identity{Cluster: cluster, Node: a.node, Created: time.Now().UTC()})
}

func (a admission) compare(id state.Identity, cluster string) error {
	switch {
	case id.Cluster != cluster:
		return &refusal{fmt.Sprintf("the working area %s belongs to cluster %s, but the API server is of cluster %s: "+
			"use the right kubeconfig, or an empty working area for the other cluster", a.area.Dir(), id.Cluster, cluster)}
	case id.Node != a.node:
		return &refusal{fmt.Sprintf("the working area %s belongs to node %s, not to %s: start the daemon under the name of the node", a.area.Dir(), id.Node, a.node)}
	default:
		return nil
	}
}

// evidence says why this cannot be a new node, "" if nothing speaks against it. An area without an identity is then a disk that
// is not mounted, and whatever were made on its mount point would be hidden by it later.
func (a admission) evidence(ctx context.Context) (string, error) {
	held, err := a.held(ctx)
	if err != nil {
		return "", err
	}
	if len(held) > 0 {
		return "this node holds workspaces: " + strings.Join(held, ", "), nil
	}
	id, err := a.formerArea(ctx)
	if err != nil || id == "" {
		return "", err
	}
	return fmt.Sprintf("its WorkspaceNode says that it had the working area %s before, in which content may lie that no object names any more", id), nil
}

// held names workspaces whose content the API server believes to be here, also those that are to go to another node.
func (a admission) held(ctx context.Context) ([]string, error) {
	const page, named = 500, 10
	var names []string
	for more := ""; ; {
		var list v1.WorkspaceList
		if err := a.list(ctx, &list, client.Limit(page), client.Continue(more)); err != nil {
			return nil, fmt.Errorf("list workspaces: %w", err)
		}
		for i := range list.Items {
			if ws := &list.Items[i]; ws.Status.NodeName == a.node {
				names = append(names, ws.Namespace+"/"+ws.Name)
			}
		}
		if more = list.Continue; more == "" || len(names) >= named {
			return names[:min(len(names), named)], nil
		}
	}
}

func (a admission) list(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.reader.List(ctx, into, options...)
}

// formerArea returns the identity of the working area that this node had before, "" if it had none. The report of an earlier
// node of the same name, which goes with that node, says nothing about this one.
func (a admission) formerArea(ctx context.Context) (string, error) {
	var report v1.WorkspaceNode
	if err := a.get(ctx, &report); err != nil {
		return "", err
	}
	if report.Status.AreaID == "" || len(report.OwnerReferences) == 0 {
		return report.Status.AreaID, nil
	}
	var node corev1.Node
	if err := a.get(ctx, &node); err != nil {
		return "", err
	}
	if node.UID != "" && node.UID != report.OwnerReferences[0].UID {
		return "", nil
	}
	return report.Status.AreaID, nil
}

// get reads the object that is named like this node; one that is absent is left empty.
func (a admission) get(ctx context.Context, into client.Object) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := client.IgnoreNotFound(a.reader.Get(ctx, client.ObjectKey{Name: a.node}, into))
	if err != nil {
		return fmt.Errorf("read what is known of node %s: %w", a.node, err)
	}
	return nil
}
