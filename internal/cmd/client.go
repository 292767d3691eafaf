package cmd

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/client"
	"wsdaemon.dev/ws-daemon/internal/config"
)

// asking is what all commands have in common that ask a daemon.
type asking struct {
	client.Options

	namespace string
	timeout   time.Duration
}

func newClient() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Ask the daemon of a node about its workspaces, and have it back them up",
		Long: `Ask the daemon of a node about its workspaces, and have it back them up.

The daemon is asked over its socket on the node, or over TLS with a certificate that its configuration gives rights.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the backup is incomplete, 4 not found, 5 denied, 6 timed out, 7 the daemon
cannot be reached or gets no answer from the store, 130 interrupted. Reports go to standard output, progress and errors to
standard error.`,
		Args: wrongly(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.Address, "address", "unix://"+config.DefaultSocket, "where the daemon is: unix:///path of its socket, or `host:port`")
	flags.StringVar(&a.CA, "ca", "", "a `file` with the authorities of the daemon's certificate, for host:port")
	flags.StringVar(&a.Cert, "cert", "", "a `file` with your certificate")
	flags.StringVar(&a.Key, "key", "", "a `file` with its key")
	flags.StringVar(&a.ServerName, "server-name", "", "the `name` in the daemon's certificate, unless it is the host of the address")
	flags.StringVarP(&a.namespace, "namespace", "n", "default", "the `namespace` of the workspaces")
	flags.DurationVar(&a.timeout, "timeout", 0, "the longest it may take; 0 leaves that to the daemon")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return client.Usage("%v; see %s --help", err, cmd.CommandPath())
	})
	a.complete(cmd, "namespace", (*asking).namespaces)
	cmd.AddCommand(
		newClientList(&a), newClientGet(&a), newClientWatch(&a), newClientWait(&a), newClientBackup(&a), newClientBackups(&a),
		newClientFiles(&a), newClientSnapshot(&a), newClientUsage(&a), newClientExport(&a),
	)
	return cmd
}

// wrongly gives errors about arguments the exit code of wrong usage.
func wrongly(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return client.Usage("%v; see %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}

// with calls do with a connection to the daemon, and a context that ends with the timeout.
func (a *asking) with(cmd *cobra.Command, do func(ctx context.Context, c *client.Client) error) error {
	ctx := cmd.Context()
	if a.timeout < 0 {
		return client.Usage("--timeout %s: must not be negative", a.timeout)
	}
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	c, err := client.Dial(a.Options)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(ctx, c)
}

// about makes a command ask the daemon about the workspace of its first argument, and offers the formats that what is found can be shown in.
func (a *asking) about(cmd *cobra.Command, do func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error, formats ...client.Format) *cobra.Command {
	var o output
	cmd.Args = wrongly(cobra.ExactArgs(1))
	cmd.ValidArgsFunction = a.suggestions((*asking).workspaces)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		look, err := o.look(cmd, false)
		if err != nil {
			return err
		}
		return a.with(cmd, func(ctx context.Context, c *client.Client) error { return do(ctx, c, a.ref(args[0]), look) })
	}
	o.flag(cmd, formats...)
	return cmd
}

// ref names the workspace of an argument, also as `kubectl get -o name` prints it.
func (a *asking) ref(arg string) client.Ref {
	for _, prefix := range []string{"workspace.workspace.wsdaemon.dev/", "workspace/", "workspaces/", "ws/"} {
		arg = strings.TrimPrefix(arg, prefix)
	}
	return client.Ref{Namespace: a.namespace, Name: arg}
}

// output is the format that -o asks for.
type output struct {
	text    string
	allowed []string
}

// flag offers some of the formats.
func (o *output) flag(cmd *cobra.Command, allowed ...client.Format) {
	for _, f := range allowed {
		o.allowed = append(o.allowed, string(f))
	}
	cmd.Flags().StringVarP(&o.text, "output", "o", "", "the `format`: "+strings.Join(o.allowed, ", ")+"; for people by default")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.allowed, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

func (o *output) look(cmd *cobra.Command, namespaces bool) (client.Look, error) {
	format, err := client.ParseFormat(o.text, o.allowed)
	return client.Look{Out: cmd.OutOrStdout(), Format: format, Namespaces: namespaces, Now: time.Now}, err
}
