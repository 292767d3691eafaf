package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// storeTimeout is the deadline of one request to the store.
const storeTimeout = 5 * time.Minute

// place names a workspace's backups in a store.
type place struct {
	store, domain, workspace, cluster string
}

func newArchive() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Work with the backups in a store, without a cluster",
	}
	cmd.PersistentFlags().StringVar(&p.store, "store", "", "the store's `URL`: file:///dir")
	cmd.AddCommand(newArchiveInit(&p), newArchiveList(&p), newArchiveExport(&p), newArchiveImport(&p))
	return cmd
}

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.domain, "domain", "", "the domain: the workspace's `namespace`")
	cmd.Flags().StringVar(&p.workspace, "workspace", "", "the `name` of the workspace")
	cmd.Flags().StringVar(&p.cluster, "cluster", "", "the `UID` of kube-system; needed only where the domain does not exist yet")
}

func (p *place) open(ctx context.Context) (store.Store, error) {
	if p.store == "" {
		return nil, errors.New("--store is missing, for example --store file:///mnt/backups")
	}
	s, err := store.Open(ctx, p.store)
	if err != nil {
		return nil, err
	}
	return store.WithTimeout(s, storeTimeout), nil
}

// find opens the workspace's history. Whoever has the store's credentials is asked for no cluster.
func (p *place) find(ctx context.Context) (*history.Domain, *history.Log, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if p.domain == "" || p.workspace == "" {
		return nil, nil, errors.New("--domain and --workspace are needed: the namespace and the name of the workspace")
	}
	if _, err := store.Identity(ctx, s); err != nil {
		return nil, nil, err
	}
	cluster := p.cluster
	if cluster == "" {
		cluster = "unknown"
		if _, err := s.Stat(ctx, "d/"+p.domain+"/domain.json"); errors.Is(err, store.ErrNotFound) {
			return nil, nil, fmt.Errorf("there is no domain %s in %s: check the name, or give --cluster to make it", p.domain, s)
		} else if err != nil {
			return nil, nil, err
		}
	}
	domain, err := history.OpenDomain(ctx, s, p.domain, cluster, true)
	if err != nil {
		return nil, nil, err
	}
	return domain, domain.Workspace(p.workspace), nil
}

func newArchiveInit(p *place) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make an empty store usable; a store that is one already is left as it is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := p.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := store.Init(cmd.Context(), s)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is store %s\n", s, id)
			return err
		},
	}
}

func newArchiveList(p *place) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the backups of a workspace, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, log, err := p.find(cmd.Context())
			if err != nil {
				return err
			}
			return listBackups(cmd.Context(), cmd.OutOrStdout(), log)
		},
	}
	p.flags(cmd)
	return cmd
}

func listBackups(ctx context.Context, out io.Writer, log *history.Log) error {
	entries, err := log.Entries(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTIME\tFILES\tBYTES\tSTORED\tNODE\tCOMPLETE")
	for _, e := range entries {
		if e.Name.IsClaim() {
			continue
		}
		c, _, err := log.Read(ctx, e.Name)
		if history.Gone(err) {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t%v\n", e.Name, e.Modified.UTC().Format(time.DateTime), err)
			continue
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%t\n", c.Name, e.Modified.UTC().Format(time.DateTime), c.Tree.Files, c.Tree.Bytes, c.Stored, c.Owner.Node, c.Complete())
	}
	return w.Flush()
}

func newArchiveExport(p *place) *cobra.Command {
	var backup, snapshot string
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write a backup as a plain tar, to standard output or a file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain, log, err := p.find(cmd.Context())
			if err != nil {
				return err
			}
			c, err := choose(cmd.Context(), domain, log, backup, snapshot)
			if err != nil {
				return err
			}
			return writeTo(cmd, args, func(w io.Writer) error { return content.Export(cmd.Context(), domain, c, w) })
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&backup, "backup", "", "the `name` of the backup, the newest complete one by default")
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "the `id` of a snapshot, in place of a backup")
	return cmd
}

func choose(ctx context.Context, domain *history.Domain, log *history.Log, backup, snapshot string) (history.Commit, error) {
	switch {
	case snapshot != "":
		pinned, err := domain.Pinned(ctx, snapshot)
		return pinned.Commit, err
	case backup != "":
		name, err := history.ParseName(backup)
		if err != nil {
			return history.Commit{}, err
		}
		c, _, err := log.Read(ctx, name)
		return c, err
	default:
		c, _, err := log.Current(ctx)
		return c, err
	}
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
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Store a plain tar, from standard input or a file, as the newest backup of a workspace that no node holds",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			domain, log, err := p.find(cmd.Context())
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
			c, err := content.Import(cmd.Context(), domain, log, p.domain, p.workspace, in)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "backup %s of workspace %s: %d files, %d bytes\n", c.Name, p.workspace, c.Tree.Files, c.Tree.Bytes)
			return err
		},
	}
	p.flags(cmd)
	return cmd
}
