package content

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// Export writes a backup as a plain tar.
func Export(ctx context.Context, domain *history.Domain, c history.Commit, w io.Writer) error {
	return archive.Export(ctx, toArchive(c.Packs), packs{domain}, w)
}

// Import stores a plain tar as the newest backup of a workspace, under a claim of its own: a node that held the workspace
// meanwhile would be fenced.
func Import(ctx context.Context, domain *history.Domain, log *history.Log, domainName, workspace string, r io.Reader) (_ history.Commit, err error) {
	dir, err := os.MkdirTemp("", "ws-daemon-import-")
	if err != nil {
		return history.Commit{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := archive.Import(ctx, r, dir); err != nil {
		return history.Commit{}, err
	}
	report, stored, err := archive.Create(ctx, dir, packs{domain}, nil)
	if err != nil {
		return history.Commit{}, err
	}
	newest, err := log.NewestClaim(ctx)
	if err != nil {
		return history.Commit{}, err
	}
	owner := history.Owner{UID: "import", Node: "import", Area: history.NewID()}
	if err := log.PublishClaim(ctx, newest+1, owner, nil); err != nil {
		return history.Commit{}, err
	}
	c := history.Commit{
		ID: history.NewID(), Domain: domainName, Workspace: workspace, Owner: owner, Created: time.Now().UTC(),
		Name: history.Name{Claim: newest + 1, Number: 1}, Tree: tree(report), Packs: toHistory(stored),
	}
	for _, p := range stored {
		c.Stored += p.Size
	}
	_, err = log.Append(ctx, c, history.Name{Claim: newest + 1})
	return c, err
}
