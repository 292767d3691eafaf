// Command cmd starts a development cluster, or prepares the programs one consists of.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// healthInterval is how often a running cluster is looked at.
const healthInterval = 2 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes API server on this machine, for development and tests.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(upCommand(), toolsCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // The deferred stop was just called.
	}
}

func upCommand() *cobra.Command {
	var options cluster.Options
	var crds string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and run it until a signal comes",
		Long: "Starts etcd, kube-apiserver and kube-controller-manager, installs the CRDs, prints the path of the\n" +
			"administrator's kubeconfig, and runs until SIGTERM or SIGINT. The objects stay in the directory.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Log = cmd.ErrOrStderr()
			return up(cmd, options, crds)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Dir, "dir", "", "directory of the cluster's data, keys, kubeconfig and logs (required)")
	flags.IntVar(&options.APIPort, "port", 0, "port of the API server on 127.0.0.1 (default: a free one)")
	flags.BoolVar(&options.ControllerManager, "controller-manager", true, "remove deleted namespaces and what is owned")
	flags.StringVar(&crds, "crds", filepath.Join("config", "crd", "bases"), "directory of CRDs to install; empty: none")
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

func up(cmd *cobra.Command, options cluster.Options, crds string) error {
	ctx := cmd.Context()
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return err
	}
	defer c.Stop()
	if crds != "" {
		if err := c.InstallCRDs(ctx, crds); err != nil {
			return err
		}
	}
	// The one line on standard output tells a script that the cluster is ready.
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig()); err != nil {
		return err
	}
	return watch(ctx, c)
}

// watch returns when ctx ends, or with an error when a process of the cluster does.
func watch(ctx context.Context, c *cluster.Cluster) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := c.Alive(); err != nil {
				return err
			}
		}
	}
}

func toolsCommand() *cobra.Command {
	all := []string{cluster.Kubectl, cluster.APIServer, cluster.Etcd, cluster.ControllerManager}
	return &cobra.Command{
		Use:       "tools [program...]",
		Short:     "Build what is missing of the programs (kubectl, kube-apiserver, etcd, kube-controller-manager) and print their directory",
		Args:      cobra.OnlyValidArgs,
		ValidArgs: all,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				names = all
			}
			tools, err := cluster.FindTools(cmd.Context(), cmd.ErrOrStderr(), names...)
			if err != nil {
				return err
			}
			dir := filepath.Dir(tools[names[0]])
			for _, name := range names {
				if filepath.Dir(tools[name]) != dir {
					return fmt.Errorf("KUBEBUILDER_ASSETS holds only some of %s: complete or unset it", strings.Join(names, ", "))
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
}
