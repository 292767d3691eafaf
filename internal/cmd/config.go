package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check a configuration, or print an example or its schema"}
	cmd.AddCommand(
		newConfigCheck(),
		&cobra.Command{
			Use: "example", Short: "Print a configuration with every key", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(config.Example())
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON schema of configurations, for editors", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write(config.Schema())
				return err
			},
		},
	)
	return cmd
}

func newConfigCheck() *cobra.Command {
	var withoutStore bool
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file, and that its store does what backups rely on", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if _, err := fmt.Fprintln(out, args[0]+": ok"); err != nil || withoutStore {
				return err
			}
			s, err := openStore(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			fitness, err := s.Probe(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, fitness)
			return err
		},
	}
	cmd.Flags().BoolVar(&withoutStore, "without-store", false, "check only the file: the store may be out of reach from here")
	return cmd
}
