package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

const (
	formatVersion = 1
	maxObject     = 8 << 20 // bytes of a commit or another record
	maxNamed      = 100     // files a commit names as unreadable or changed
)

// Ref names a commit and its exact bytes.
type Ref struct {
	Name Name   `json:"name"`
	Hash string `json:"hash"` // hex SHA-256 of the commit's bytes
}

// Owner is who holds a workspace under a claim.
type Owner struct {
	UID  string `json:"uid"`  // of the Workspace object
	Node string `json:"node"` // name of the node
	Area string `json:"area"` // id of the node's working area
}

// Pack is an object that holds content.
type Pack struct {
	ID     string   `json:"id"`             // 32 hex digits
	Size   int64    `json:"size"`           // bytes
	CRC32C Checksum `json:"crc32c"`         // of all its bytes
	Live   int64    `json:"live,omitempty"` // bytes of it that the backup needs
	New    bool     `json:"new,omitempty"`  // it was stored for this backup; the others are older backups'
}

// Problem is a file that could not be read.
type Problem struct {
	Path  string `json:"path"` // as printed by %q if it is not clean UTF-8
	Error string `json:"error"`
}

// Tree sums up the content of a backup.
type Tree struct {
	Digest          string    `json:"digest"`
	Files           int64     `json:"files"`
	Dirs            int64     `json:"dirs"`
	Bytes           int64     `json:"bytes"`
	Unreadable      []Problem `json:"unreadable,omitempty"`      // at most 100
	UnreadableCount int64     `json:"unreadableCount,omitempty"` // all of them
	Changed         []string  `json:"changed,omitempty"`         // files that never held still; at most 100
}

// Commit is one backup, or the record of a claim.
type Commit struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"` // random, of the writer's attempt: tells its own commit from another's
	Domain    string    `json:"domain"`
	Workspace string    `json:"workspace"`
	Name      Name      `json:"name"`
	Owner     Owner     `json:"owner"`
	Parent    *Ref      `json:"parent,omitempty"`
	Base      Name      `json:"base,omitzero"`  // claim records: the newest name when the claim was made
	Seen      []Name    `json:"seen,omitempty"` // claim records: the newest name of each older claim then; later ones are forks
	Created   time.Time `json:"created"`
	Tree      Tree      `json:"tree"`
	Accepted  bool      `json:"accepted,omitempty"` // a person takes this incomplete backup for complete
	Table     []byte    `json:"table,omitempty"`    // where the pages of the manifest lie, as archive wrote it
	Packs     []Pack    `json:"packs,omitempty"`    // every one that is needed
	Stored    int64     `json:"stored"`             // bytes this backup added to the store
}

// Complete reports whether the commit is a backup that lacks nothing.
func (c Commit) Complete() bool {
	return !c.Name.IsClaim() && (c.Accepted || (c.Tree.UnreadableCount == 0 && len(c.Tree.Unreadable) == 0))
}

// encode returns the bytes of a record, within the limit that its readers have.
func encode(key string, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	data = store.AppendSum(data)
	if len(data) > maxObject {
		return nil, fmt.Errorf("encode %s: %d bytes are more than the %d a record may have", key, len(data), maxObject)
	}
	return data, nil
}

// fetch reads a record of limited size.
func fetch(ctx context.Context, s store.Store, key string) ([]byte, error) {
	data, err := s.Get(ctx, key, maxObject)
	if errors.Is(err, store.ErrTooLarge) {
		return nil, damaged(key, fmt.Errorf("more than the %d a record may have: %w", maxObject, err))
	}
	return data, err
}

// decode reads a record. Unknown fields are those of newer writers of the same format and are passed over. The checksum is that of
// every format.
func decode(key string, data []byte, v any) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := store.CheckSum(data); err != nil {
		return damaged(key, err)
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return damaged(key, err)
	}
	if head.Format > formatVersion {
		return fmt.Errorf("read %s: it has format %d, this version knows %d: update ws-daemon", key, head.Format, formatVersion)
	}
	if head.Format < 1 {
		return damaged(key, errors.New("the format is missing"))
	}
	if err := json.Unmarshal(data, v); err != nil {
		return damaged(key, err)
	}
	return nil
}

// belongs checks that a commit read under a name is that commit and no other's copy.
func (c Commit) belongs(key, domain, workspace string, name Name) error {
	if c.Domain != domain || c.Workspace != workspace || c.Name != name {
		return damaged(key, fmt.Errorf("it says it is backup %s of workspace %q in domain %q", c.Name, c.Workspace, c.Domain))
	}
	return c.valid(key)
}

func (c Commit) valid(key string) error {
	if c.ID == "" {
		return damaged(key, errors.New("the commit has no id"))
	}
	for _, p := range c.Packs {
		if err := p.valid(); err != nil {
			return damaged(key, err)
		}
	}
	return nil
}

func (t Tree) clipped() Tree {
	t.Unreadable = t.Unreadable[:min(len(t.Unreadable), maxNamed)]
	t.UnreadableCount = max(t.UnreadableCount, int64(len(t.Unreadable)))
	t.Changed = t.Changed[:min(len(t.Changed), maxNamed)]
	return t
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
