package cmd

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newArchiveExport(p *place) *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write a backup as a plain tar, to standard output or a file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, c, err := from.find(cmd.Context(), p)
			if err != nil {
				return err
			}
			return writeTo(cmd, args, func(w io.Writer) error { return a.Export(cmd.Context(), c, w) })
		},
	}
	p.flags(cmd)
	from.flags(cmd)
	return cmd
}

// writeTo writes to the named file, which must not exist, or to standard output.
func writeTo(cmd *cobra.Command, args []string, write func(io.Writer) error) error {
	if len(args) == 0 || args[0] == "-" {
		return write(cmd.OutOrStdout())
	}
	file, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(args[0])) // half a tar looks like a whole one
	}
	return nil
}

func newArchiveImport(p *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Store a plain tar, from standard input or a file, as the newest backup of a workspace that no node holds",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			a, err := p.standalone(cmd.Context(), true)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			made, err := a.Import(cmd.Context(), in)
			if err != nil {
				return err
			}
			return p.made(made, began).print(cmd.OutOrStdout(), asJSON, "imported")
		},
	}
	p.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
