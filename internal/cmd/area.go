package cmd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/state"
)

func newArea() *cobra.Command {
	var o options
	initialize := &cobra.Command{
		Use:   "init",
		Short: "Give the working area an identity, after a disk was replaced",
		Long: "Give the working area an identity. The daemon does so by itself on a new node. On a node that holds workspaces a\n" +
			"missing identity means that the disk is missing: run this only if the disk is really a new one. The newest\n" +
			"backups are then restored; what was not backed up is lost with the old disk. A daemon that waits for its\n" +
			"disk meanwhile starts anew with this one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return initArea(cmd.Context(), cmd, o) },
	}
	o.flags(initialize)
	cmd := &cobra.Command{Use: "area", Short: "Look after the node's working area"}
	cmd.AddCommand(initialize)
	return cmd
}

func initArea(ctx context.Context, cmd *cobra.Command, o options) error {
	cfg, err := config.Load(o.config)
	if err != nil {
		return err
	}
	rest, err := o.rest()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	reader, err := newReader(rest)
	if err != nil {
		return err
	}
	cluster, err := clusterUID(ctx, reader)
	if err != nil {
		return err
	}
	err = state.Initialize(cfg.Content.WorkingArea, state.Identity{Cluster: cluster, Node: o.node, Created: time.Now().UTC()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is now the working area of node %s\n", cfg.Content.WorkingArea, o.node)
	return err
}

// options are what every command on a node needs.
type options struct {
	config     string
	node       string
	kubeconfig string
	pprof      string
}

func (o *options) flags(cmd *cobra.Command) {
	node := os.Getenv("NODE_NAME")
	if node == "" {
		node, _ = os.Hostname() // an empty name is refused below
	}
	cmd.Flags().StringVar(&o.config, "config", "/etc/ws-daemon/config.json", "the configuration `file`")
	cmd.Flags().StringVar(&o.node, "node", node, "the `name` of this node, $NODE_NAME by default")
	cmd.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "a kubeconfig `file`; in a pod the service account is used, else $KUBECONFIG")
}
