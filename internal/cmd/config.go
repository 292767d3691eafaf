package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check a configuration, or print an example"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check FILE", Short: "Check a configuration file", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if _, err := config.Load(args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), args[0]+": ok")
				return err
			},
		},
		&cobra.Command{
			Use: "example", Short: "Print a configuration with every key", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(config.Example())
			},
		},
	)
	return cmd
}
