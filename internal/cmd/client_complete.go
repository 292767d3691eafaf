package cmd

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/client"
)

// completeTimeout is how long a shell waits for what a daemon knows.
const completeTimeout = 3 * time.Second

// suggest asks the daemon for what an argument or a flag may be; args are the arguments before it.
type suggest func(a *asking, ctx context.Context, c *client.Client, args []string) ([]string, error)

// complete has the values of a flag suggested by the daemon.
func (a *asking) complete(cmd *cobra.Command, flag string, by suggest) {
	_ = cmd.RegisterFlagCompletionFunc(flag, a.suggestions(by)) // the flag is there
}

func (a *asking) suggestions(by suggest) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var found []string
		a.timeout = completeTimeout
		err := a.with(cmd, func(ctx context.Context, c *client.Client) (err error) {
			found, err = by(a, ctx, c, args)
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
			return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// workspaces are the names that come first; after them there is nothing to suggest.
func (a *asking) workspaces(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	if len(args) > 0 {
		return nil, nil
	}
	all, err := c.List(ctx, a.namespace)
	names := make([]string, 0, len(all))
	for _, ws := range all {
		names = append(names, ws.GetName())
	}
	return names, err
}

func (a *asking) namespaces(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
	all, err := c.List(ctx, "")
	names := make([]string, 0, len(all))
	for _, ws := range all {
		names = append(names, ws.GetNamespace())
	}
	return slices.Compact(names), err // they are in order
}

func (a *asking) backups(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	all, err := c.Backups(ctx, a.ref(args[0]), 100)
	names := make([]string, 0, len(all))
	for _, b := range all {
		names = append(names, b.GetName())
	}
	return names, err
}
