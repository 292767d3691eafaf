package cmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
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
}

// wait asks the API server which cluster it is, as long as it takes: the node's content is in use meanwhile. It returns the
// cluster's identity, and an error if the working area belongs to another one.
func (a admission) wait(ctx context.Context) (string, error) {
	var cluster string
	err := wait.PollUntilContextCancel(ctx, 2*time.Second, true, func(ctx context.Context) (bool, error) {
		var err error
		if cluster, err = clusterUID(ctx, a.reader); err != nil {
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
	held, err := a.held(ctx)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		a.logger.Error(err, "the working area has no identity, but this node holds workspaces: mount its disk; if the disk is really a new one, run `ws-daemon area init`",
			"area", a.area.Dir(), "workspaces", held)
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

// held names the workspaces whose content the API server believes to be here.
func (a admission) held(ctx context.Context) ([]string, error) {
	var list v1.WorkspaceList
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := a.reader.List(ctx, &list, client.MatchingFields{"spec.nodeName": a.node}); err != nil {
		return nil, fmt.Errorf("list this node's workspaces: %w", err)
	}
	var names []string
	for i := range list.Items {
		if ws := &list.Items[i]; ws.Status.NodeName == a.node {
			names = append(names, ws.Namespace+"/"+ws.Name)
		}
	}
	return names, nil
}
