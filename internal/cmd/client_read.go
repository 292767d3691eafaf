package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/client"
)

// allNamespaces is the flag for all namespaces.
func allNamespaces(cmd *cobra.Command, all *bool) {
	cmd.Flags().BoolVarP(all, "all-namespaces", "A", false, "those of all namespaces, whatever -n says")
}

func (a *asking) scope(all bool) string {
	if all {
		return ""
	}
	return a.namespace
}

func newClientList(a *asking) *cobra.Command {
	var all bool
	var o output
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the workspaces of the node", Args: wrongly(cobra.NoArgs),
		Example: "  ws-daemon client list -A\n  ws-daemon client list -n team -o json | jq '.items[] | select(.ready | not) | .name'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			look, err := o.look(cmd, all)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				found, err := c.List(ctx, a.scope(all))
				if err != nil {
					return err
				}
				if len(found) == 0 && (look.Format == client.Table || look.Format == client.Wide) {
					_, err := fmt.Fprintln(cmd.ErrOrStderr(), "There are no workspaces of this node"+within(a.scope(all))+".")
					return err
				}
				return look.Workspaces().List(found)
			})
		},
	}
	allNamespaces(cmd, &all)
	o.flag(cmd, client.JSON, client.YAML, client.Wide, client.Name)
	return cmd
}

func within(namespace string) string {
	if namespace == "" {
		return ""
	}
	return " in namespace " + namespace
}

func newClientGet(a *asking) *cobra.Command {
	cmd := &cobra.Command{Use: "get NAME", Short: "Show a workspace; -o yaml shows everything that the daemon says of it"}
	return a.about(cmd, func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error {
		found, err := c.Get(ctx, ws)
		if err != nil {
			return err
		}
		return look.Workspaces().One(found)
	}, client.JSON, client.YAML, client.Wide, client.Name)
}

func newClientWatch(a *asking) *cobra.Command {
	var all bool
	var o output
	cmd := &cobra.Command{
		Use: "watch [NAME]", Short: "Show the workspaces of the node, and what changes, until it is interrupted", Args: wrongly(cobra.MaximumNArgs(1)),
		Long: "Show the workspaces of the node, and what changes, until it is interrupted. It goes on when the daemon restarts.\n" +
			"With -o json, each change is an object on a line of its own.",
		ValidArgsFunction: a.suggestions((*asking).workspaces),
		RunE: func(cmd *cobra.Command, args []string) error {
			look, err := o.look(cmd, all)
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = a.ref(args[0]).Name
			}
			if all && name != "" {
				return client.Usage("-A is for all workspaces, not for %s: name its namespace with -n", name)
			}
			events := look.Events()
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return c.Watch(ctx, a.scope(all), name, events.More, func(lost error) { fmt.Fprintln(cmd.ErrOrStderr(), lost) })
			})
		},
	}
	allNamespaces(cmd, &all)
	o.flag(cmd, client.JSON, client.Wide, client.Name)
	return cmd
}

func newClientBackups(a *asking) *cobra.Command {
	var limit int
	cmd := &cobra.Command{Use: "backups NAME", Short: "List the backups of a workspace, newest first"}
	cmd.Flags().IntVar(&limit, "limit", 0, "list only so `many`; 0 is all")
	return a.about(cmd, func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error {
		found, err := c.Backups(ctx, ws, limit)
		if err != nil {
			return err
		}
		return look.Backups().List(found)
	}, client.JSON, client.YAML, client.Wide, client.Name)
}

func newClientUsage(a *asking) *cobra.Command {
	cmd := &cobra.Command{Use: "usage NAME", Short: "Show what a workspace takes now, and how old its unsaved changes may be"}
	return a.about(cmd, func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error {
		found, err := c.Usage(ctx, ws)
		if err != nil {
			return err
		}
		return look.Usages(ws.Name).One(found)
	}, client.JSON, client.YAML, client.Wide)
}

func newClientWait(a *asking) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait NAME", Short: "Wait until a workspace is ready, also if there is none yet",
		Long: "Wait until a workspace is ready, also if there is none yet. It fails at once if the workspace cannot get ready\n" +
			"before somebody changes something.",
		Example: "  ws-daemon client wait web --timeout 10m && echo go",
		PreRun: func(cmd *cobra.Command, _ []string) {
			if !cmd.Flags().Changed("timeout") {
				a.timeout = waitTimeout
			}
		},
	}
	return a.about(cmd, func(ctx context.Context, c *client.Client, name client.Ref, look client.Look) error {
		steps := stepsOn(cmd)
		ws, err := c.WaitReady(ctx, name, func(ws *daemonv1.Workspace) { steps.show(stepOf(ws)) })
		steps.end()
		if err != nil {
			return err
		}
		if look.Format != client.Table {
			return look.Workspaces().One(ws)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "workspace/%s is ready on %s: %s\n", ws.GetName(), ws.GetHolder(), ws.GetVolume().GetPath())
		return err
	}, client.JSON, client.YAML, client.Wide, client.Name)
}
