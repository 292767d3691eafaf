package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// listed is a backup as `list --json` prints it.
type listed struct {
	Name     string    `json:"name"`
	Time     time.Time `json:"time"`
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Stored   int64     `json:"stored"`
	Node     string    `json:"node"`
	Complete bool      `json:"complete"`
	Damage   string    `json:"damage,omitempty"`
}

func newArchiveList(p *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the backups of a workspace, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := p.standalone(cmd.Context())
			if err != nil {
				return err
			}
			all, err := listBackups(cmd.Context(), a.Domain.Workspace(p.workspace))
			if err == nil && len(all) == 0 {
				err = a.Domain.Find(cmd.Context())
			}
			if err != nil {
				return err
			}
			if all == nil {
				return fmt.Errorf("there is no workspace %s in domain %s: check the names", p.workspace, p.domain)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
			}
			return printBackups(cmd.OutOrStdout(), all)
		},
	}
	p.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array")
	return cmd
}

func listBackups(ctx context.Context, log *history.Log) ([]listed, error) {
	entries, err := log.Entries(ctx)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	all := make([]listed, 0, len(entries))
	for _, e := range entries {
		if e.Name.IsClaim() {
			continue
		}
		l := listed{Name: e.Name.String(), Time: e.Modified.UTC()}
		c, _, err := log.Read(ctx, e.Name)
		switch {
		case history.Gone(err):
			l.Damage = err.Error()
		case err != nil:
			return nil, err
		default:
			l.Files, l.Bytes, l.Stored, l.Node, l.Complete = c.Tree.Files, c.Tree.Bytes, c.Stored, c.Owner.Node, c.Complete()
		}
		all = append(all, l)
	}
	return all, nil
}

func printBackups(out io.Writer, all []listed) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTIME\tFILES\tBYTES\tSTORED\tNODE\tCOMPLETE")
	for _, l := range all {
		if l.Damage != "" {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t%s\n", l.Name, l.Time.Format(time.DateTime), l.Damage)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%t\n", l.Name, l.Time.Format(time.DateTime), l.Files, l.Bytes, l.Stored, l.Node, l.Complete)
	}
	return w.Flush()
}

// source names the backup that a reading command looks into.
type source struct{ backup, snapshot string }

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.backup, "backup", "", "the `name` of the backup, the newest complete one by default")
	cmd.Flags().StringVar(&s.snapshot, "snapshot", "", "the `id` of a snapshot, in place of a backup")
}

func (s *source) find(ctx context.Context, p *place) (content.Standalone, history.Commit, error) {
	a, err := p.standalone(ctx)
	if err != nil {
		return a, history.Commit{}, err
	}
	defer p.requests.display("looking for the backup").end()
	c, err := a.Find(ctx, s.backup, s.snapshot)
	return a, c, err
}

func newArchiveLs(p *place) *cobra.Command {
	var from source
	var recursive, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [PATH]",
		Short: "List what is in a backup",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, c, err := from.find(cmd.Context(), p)
			if err != nil {
				return err
			}
			return a.List(cmd.Context(), c, strings.Join(args, ""), recursive, rowPrinter(cmd.OutOrStdout(), asJSON))
		},
	}
	p.flags(cmd)
	from.flags(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "list everything below the path")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on each line")
	return cmd
}

func newArchiveCat(p *place) *cobra.Command {
	var from source
	cmd := &cobra.Command{
		Use:   "cat PATH",
		Short: "Print a file of a backup",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, c, err := from.find(cmd.Context(), p)
			if err != nil {
				return err
			}
			return a.Cat(cmd.Context(), c, args[0], cmd.OutOrStdout())
		},
	}
	p.flags(cmd)
	from.flags(cmd)
	return cmd
}

func newArchiveDiff(p *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "Tell what differs between two backups; TO is the newest complete one by default",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := p.standalone(cmd.Context())
			if err != nil {
				return err
			}
			before, err := a.Find(cmd.Context(), args[0], "")
			if err != nil {
				return err
			}
			after, err := a.Find(cmd.Context(), strings.Join(args[1:], ""), "")
			if err != nil {
				return err
			}
			return a.Diff(cmd.Context(), before, after, changePrinter(cmd.OutOrStdout(), asJSON))
		},
	}
	p.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on each line")
	return cmd
}

func newArchiveVerify(p *place) *cobra.Command {
	var from source
	var readData, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Make sure that a backup can be restored",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			a, c, err := from.find(cmd.Context(), p)
			if err != nil {
				return err
			}
			end := p.requests.follow("verifying")
			err = a.Verify(cmd.Context(), c, readData)
			end()
			if err != nil {
				return damage(cmd.ErrOrStderr(), err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p.looked(c, began))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "backup %s is whole: %d files, %d bytes\n", c.Name, c.Tree.Files, c.Tree.Bytes)
			return err
		},
	}
	p.flags(cmd)
	from.flags(cmd)
	cmd.Flags().BoolVar(&readData, "read-data", false, "read every byte, instead of what describes them")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// looked is the report of a command that changes nothing.
func (p *place) looked(c history.Commit, began time.Time) summary {
	return summary{
		Backup: c.Name.String(), Files: c.Tree.Files, Directories: c.Tree.Dirs, Bytes: c.Tree.Bytes,
		Requests: p.requests.counts(), Seconds: time.Since(began).Seconds(),
	}
}

// damage names everything that is damaged, and whom it concerns, before the error says so in short.
func damage(out io.Writer, err error) error {
	if found, ok := errors.AsType[*archive.DamageError](err); ok {
		for _, p := range found.Problems {
			fmt.Fprintf(out, "%s: %s\n", p.Path, p.Error)
		}
	}
	if found, ok := errors.AsType[*content.DamagedError](err); ok {
		for _, need := range found.Needs {
			fmt.Fprintln(out, need)
		}
	}
	return err
}
