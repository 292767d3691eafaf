package content

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
)

// packs connects archives to a domain.
type packs struct{ domain *history.Domain }

// PutPack stores a pack.
func (p packs) PutPack(ctx context.Context, id format.PackID, data []byte) error {
	return p.domain.PutPack(ctx, id.String(), data)
}

// ReadPack reads a part of a pack.
func (p packs) ReadPack(ctx context.Context, id format.PackID, offset int64, buf []byte) error {
	return p.domain.ReadPack(ctx, id.String(), offset, buf)
}

// connections is how many requests at once are worth their memory; 0 leaves that to the engine.
func (p packs) connections() int {
	if p.domain.IsLocal() {
		return 1
	}
	return 0
}

// rootOf returns what a commit says of its archive.
func rootOf(c history.Commit) (archive.Root, error) {
	root := archive.Root{Table: c.Table, Packs: make([]archive.Pack, len(c.Packs))}
	for i, p := range c.Packs {
		var err error
		if root.Packs[i].ID, err = format.ParsePackID(p.ID); err != nil {
			return root, fmt.Errorf("%w: backup %s of workspace %s: pack %q: %w", history.ErrDamaged, c.Name, c.Workspace, p.ID, err)
		}
		root.Packs[i].Size, root.Packs[i].CRC32C, root.Packs[i].Live = p.Size, uint32(p.CRC32C), p.Live
	}
	if err := decodeHash(&root.Digest, c.Tree.Digest); err != nil {
		return root, fmt.Errorf("%w: backup %s of workspace %s: digest: %w", history.ErrDamaged, c.Name, c.Workspace, err)
	}
	return root, nil
}

// checkKey makes sure that whoever seals in a domain under a generation does so with the same key.
func checkKey(ctx context.Context, domain *history.Domain, key *format.Key) error {
	if key == nil {
		return nil
	}
	check, err := key.Check()
	if err != nil {
		return err
	}
	return domain.CheckKey(ctx, key.Generation(), check)
}

// named says in an error about a key whose backup it is.
func named(c history.Commit, err error) error {
	if errors.Is(err, format.ErrKey) {
		return fmt.Errorf("backup %s of workspace %s in domain %s: %w", c.Name, c.Workspace, c.Domain, err)
	}
	return err
}

// keyOf returns the key that opens a commit's archive: none if that was made before there was a key.
func keyOf(c history.Commit, key *format.Key) *format.Key {
	if generation, err := format.TableGeneration(c.Table); err == nil && generation == 0 {
		return nil
	}
	return key
}

// sealedAlike says whether what is sealed with the key now can refer to a commit's archive: the same key sealed that. Where it cannot, everything is stored
// anew: nobody who turns sealing on wants to go on needing what is not sealed.
func sealedAlike(c history.Commit, key *format.Key) bool {
	generation, err := format.TableGeneration(c.Table)
	if err != nil || key == nil {
		return err == nil && generation == 0
	}
	return generation == key.Generation()
}

func decodeHash(into *format.Hash, text string) error {
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != len(into) {
		return fmt.Errorf("%q is not %d bytes in hexadecimal", text, len(into))
	}
	copy(into[:], sum)
	return nil
}

// take fills in what an archive that was just created adds to a commit.
func take(c *history.Commit, r *archive.Result) {
	c.Tree, c.Table, c.Stored = tree(r.Report), r.Table, r.Stored
	added := map[format.PackID]bool{}
	for _, p := range r.NewPacks {
		added[p.ID] = true
	}
	c.Packs = make([]history.Pack, len(r.Packs))
	for i, p := range r.Packs {
		c.Packs[i] = packOf(p)
		c.Packs[i].New = added[p.ID]
	}
}

// equals says whether a tree that was read is the one of a backup.
func equals(t history.Tree, r archive.Report) bool {
	return t.Digest == r.Digest && t.UnreadableCount == r.UnreadableCount
}

func tree(r archive.Report) history.Tree {
	t := history.Tree{Digest: r.Digest, Files: r.Files, Dirs: r.Dirs, Bytes: r.Bytes, UnreadableCount: r.UnreadableCount}
	for _, p := range r.Unreadable {
		t.Unreadable = append(t.Unreadable, history.Problem{Path: clip(p.Path), Error: p.Error})
	}
	for _, path := range r.Changed {
		t.Changed = append(t.Changed, clip(path))
	}
	return t
}

// clip shortens a path: users choose them, and hundreds may stand in a commit, the journal and a status.
func clip(path string) string {
	const limit = 1 << 10
	if len(path) <= limit {
		return path
	}
	return strings.ToValidUTF8(path[:limit], "") + "…"
}

func packOf(p archive.Pack) history.Pack {
	return history.Pack{ID: p.ID.String(), Size: p.Size, CRC32C: history.Checksum(p.CRC32C), Live: p.Live}
}

// newOf returns the packs that were stored for a backup.
func newOf(all []history.Pack) []history.Pack {
	var own []history.Pack
	for _, p := range all {
		if p.New {
			own = append(own, p)
		}
	}
	return own
}

// indexPath is where the node remembers the inodes of a workspace's tree.
func (k *Keeper) indexPath(uid string) string { return filepath.Join(k.Area.Dir(), "index", uid) }

// loadIndex returns nil if there is none that can be used: then everything is read.
func (k *Keeper) loadIndex(s Subject) *archive.Index {
	index, err := archive.LoadIndex(k.indexPath(s.UID))
	if err != nil {
		return nil
	}
	return index
}

// saveIndex keeps an index; nil removes the one there is. It is a cache: without it the next backup reads everything, so that it
// cannot be written, on a full disk for example, is no failure.
func (k *Keeper) saveIndex(s Subject, index *archive.Index) {
	path := k.indexPath(s.UID)
	if index != nil && os.MkdirAll(filepath.Dir(path), 0o700) == nil && index.Save(path) == nil {
		return
	}
	_ = os.Remove(path) // what is there describes another backup
}

// sweepIndexes removes what a crash left, and the indexes of volumes that are gone.
func (k *Keeper) sweepIndexes() {
	dir := filepath.Dir(k.indexPath("x"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none yet
	}
	for _, e := range entries {
		if _, known := k.Area.Journal().Get(e.Name()); !known {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
