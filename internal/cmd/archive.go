package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
)

// collectAt is how much garbage there may be before it is collected, in percent of what is in use. Most of that are buffers, which
// cost the collector nothing: it can run often.
const collectAt = 25

// place names a workspace's backups in a store.
type place struct {
	store, domain, workspace, cluster, keyFile string

	requests requests
}

func newArchive() *cobra.Command {
	var p place
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Work with the backups in a store, without a cluster",
		PersistentPreRun: func(*cobra.Command, []string) {
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(collectAt)
			}
		},
	}
	cmd.PersistentFlags().StringVar(&p.store, "store", "", "the store's `URL`: file:///dir, s3://bucket/prefix or gs://bucket/prefix (?endpoint=https://host:port)")
	cmd.AddCommand(
		newArchiveInit(&p), newArchiveCreate(&p), newArchiveRestore(&p), newArchiveList(&p), newArchiveLs(&p), newArchiveCat(&p),
		newArchiveDiff(&p), newArchiveVerify(&p), newArchiveExport(&p), newArchiveImport(&p), newArchiveCollect(&p),
	)
	return cmd
}

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.domain, "domain", "", "the domain: the workspace's `namespace`")
	cmd.Flags().StringVar(&p.workspace, "workspace", "", "the `name` of the workspace")
	cmd.Flags().StringVar(&p.cluster, "cluster", "", "the `UID` of kube-system; by default domains made here belong to no cluster")
	cmd.Flags().StringVar(&p.keyFile, "key-file", "", "a `file` with the keys that seal backups, or a directory with one for each domain, DOMAIN.key; "+
		"a line for each key, the first one seals: 64 hex digits, as openssl rand -hex 32 prints them, or GENERATION:DIGITS")
}

func (p *place) open(ctx context.Context) (store.Store, error) {
	if p.store == "" {
		return nil, errors.New("--store is missing, for example --store file:///mnt/backups")
	}
	s, err := drivers.Open(ctx, p.store)
	if err != nil {
		return nil, err
	}
	return p.requests.counted(store.WithPatience(s, patience(&p.requests.waits))), nil
}

// standalone names the workspace's backups. Whoever has the store's credentials is asked for no cluster.
func (p *place) standalone(ctx context.Context) (content.Standalone, error) {
	a := content.Standalone{Namespace: p.domain, Workspace: p.workspace, Cluster: cmp.Or(p.cluster, "none")}
	s, err := p.open(ctx)
	if err != nil {
		return a, err
	}
	if p.domain == "" || p.workspace == "" {
		return a, errors.New("--domain and --workspace are needed: the namespace and the name of the workspace")
	}
	if a.Key, err = keyRing(p.keyFile).of(p.domain); err != nil {
		return a, err
	}
	a.Domain, err = history.NameDomain(s, p.domain)
	return a, err
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
			if _, err := store.Probe(cmd.Context(), s); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is store %s\n", s, id)
			return err
		},
	}
}
