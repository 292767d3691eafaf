package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/content/history"
)

func newArchiveCollect(p *place) *cobra.Command {
	var o history.CollectOptions
	var domain string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "Count the packs of a domain that no backup needs; with --delete remove them, in two runs a day apart",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if domain == "" {
				return errors.New("--domain is needed: the namespace whose packs are to be collected")
			}
			if o.Wait < history.MinWait {
				return fmt.Errorf("--wait %s is too short: a backup that began before may still need a pack: at least %s", o.Wait, history.MinWait)
			}
			s, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			d, err := history.NameDomain(s, domain)
			if err == nil {
				err = d.Find(cmd.Context())
			}
			if err != nil {
				return err
			}
			found, err := d.Collect(cmd.Context(), o)
			if err != nil {
				return err
			}
			return printCollection(cmd.OutOrStdout(), domain, found, o.Delete, asJSON)
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "the domain: a `namespace`")
	cmd.Flags().BoolVar(&o.Delete, "delete", false, "condemn what no backup needs, and remove what was condemned long enough ago")
	cmd.Flags().DurationVar(&o.Wait, "wait", history.DefaultWait, "how old a pack must be to be condemned, and how `long` it then stays, by the store's clock")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// printCollection writes a report, and returns an error with a code of its own if backups lack packs.
func printCollection(out io.Writer, domain string, c history.Collection, deleting, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(out).Encode(c); err != nil {
			return err
		}
	} else {
		describeCollection(out, domain, c, deleting)
	}
	if c.MissingCount == 0 {
		return nil
	}
	return &codeError{incompleteCode, fmt.Sprintf("domain %s lacks %d packs that backups need, the first: %s", domain, c.MissingCount, c.Missing[0])}
}

func describeCollection(out io.Writer, domain string, c history.Collection, deleting bool) {
	if c.Packs > 0 {
		fmt.Fprintf(out, "domain %s: %d packs, %d bytes; no backup needs %d of them, %d bytes\n", domain, c.Packs, c.Bytes, c.Idle, c.IdleBytes)
	}
	if !deleting {
		fmt.Fprintln(out, "nothing was changed: --delete condemns and removes what no backup needs")
		return
	}
	fmt.Fprintf(out, "removed %d packs, %d bytes", c.Removed, c.RemovedBytes)
	if c.Rescued > 0 {
		fmt.Fprintf(out, "; %d were condemned and are needed after all", c.Rescued)
	}
	fmt.Fprintf(out, "\ncondemned are %d packs: run it again after %s\n", c.Condemned, c.Due.UTC().Format(time.RFC3339))
}
