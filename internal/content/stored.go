package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/fair"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Stored is what the store has of a workspace, for those who want to look at it. Nothing is written.
type Stored struct {
	keeper  *Keeper
	subject Subject
	domain  *history.Domain
	key     *format.Key
}

// StoredBackup is a backup as it is listed.
type StoredBackup struct {
	Name history.Name
	// Time it was committed, by the store's clock.
	Time time.Time
	// Commit of the backup; the zero value if that is damaged or just went.
	Commit history.Commit
	// Damage says why there is none.
	Damage string
}

// Stored opens the subject's domain, whoever holds the workspace. A domain that is not there is an [*AbsentError].
func (k *Keeper) Stored(ctx context.Context, s Subject) (*Stored, error) {
	if err := k.checkStore(ctx); err != nil {
		return nil, err
	}
	domain, err := history.ReadDomain(ctx, k.Store, s.Namespace, k.Cluster, k.AdoptCluster)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &AbsentError{Subject: s, What: "backup"}
	}
	if err != nil {
		return nil, err
	}
	stored := &Stored{keeper: k, subject: s, domain: domain}
	if k.Keys != nil {
		stored.key, err = k.Keys(s.Namespace)
	}
	return stored, err
}

// Backups returns at most n backups, newest first, of those that are older than before if that is a name; more says whether there are
// others after them.
func (s *Stored) Backups(ctx context.Context, before history.Name, n int) (backups []StoredBackup, more bool, err error) {
	log := s.domain.Workspace(s.subject.Name)
	entries, err := log.Entries(s.with(ctx))
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		if e.Name.IsClaim() || !before.IsZero() && e.Name.Compare(before) >= 0 {
			continue
		}
		if len(backups) == n {
			return backups, true, nil
		}
		b := StoredBackup{Name: e.Name, Time: e.Modified}
		b.Commit, _, err = log.Read(s.with(ctx), e.Name)
		if err != nil && !history.Gone(err) {
			return nil, false, err
		}
		if err != nil {
			b.Damage = err.Error()
		}
		backups = append(backups, b)
	}
	return backups, false, nil
}

// Find returns a backup by its name, a snapshot of the domain by its id, or the newest complete backup if both are empty. What is not
// there is an [*AbsentError], what is damaged a [*DamagedError].
func (s *Stored) Find(ctx context.Context, backup, snapshot string) (history.Commit, error) {
	what := "complete backup"
	switch {
	case backup != "":
		what = "backup " + backup
	case snapshot != "":
		what = "snapshot " + snapshot
	}
	c, err := Standalone{Domain: s.domain, Workspace: s.subject.Name}.find(s.with(ctx), backup, snapshot)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, history.ErrNoBackup) {
		return c, &AbsentError{Subject: s.subject, What: what}
	}
	return c, orDamaged(err, fmt.Sprintf("%s of workspace %s", what, s.subject), "choose another backup")
}

// Files calls each for what is at a path of a backup: see [archive.List].
func (s *Stored) Files(ctx context.Context, c history.Commit, path string, recursive bool, each func(archive.Row) error) error {
	root, err := rootOf(c)
	if err != nil {
		return s.damaged(c, err)
	}
	return s.damaged(c, archive.List(s.with(ctx), root, packs{s.domain}, keyOf(c, s.key), path, recursive, each))
}

// Export writes a backup as a plain tar. It waits until its buffers fit into the memory that all jobs of the node share.
func (s *Stored) Export(ctx context.Context, c history.Commit, w io.Writer) error {
	root, err := rootOf(c)
	if err != nil {
		return s.damaged(c, err)
	}
	ctx = s.with(ctx)
	share, err := s.keeper.Memory.Join(ctx, archive.ExportMemory)
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	defer share.Close()
	return s.damaged(c, archive.Export(ctx, root, packs{s.domain}, keyOf(c, s.key), w))
}

// with says that whoever looks waits after those who fill workspaces and let them go.
func (s *Stored) with(ctx context.Context) context.Context {
	return fair.With(ctx, s.subject.UID, fair.Background)
}

func (s *Stored) damaged(c history.Commit, err error) error {
	if err == nil || errors.Is(err, format.ErrKey) {
		return named(c, err)
	}
	return orDamaged(err, fmt.Sprintf("backup %s of workspace %s", c.Name, s.subject), "choose another backup")
}
