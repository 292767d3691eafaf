// Package archive stores trees of files as backups and restores them: docs/format.md describes what it writes.
//
// [Create] scans a tree, reads what differs from the backup before, and stores packs of compressed blocks and pages of the
// manifest. [Restore], [Verify], [List], [Cat], [Diff] and [Export] read them. Nothing here knows a cluster or a workspace:
// where packs lie and which backup is the newest is for the caller.
package archive

import (
	"context"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// Sink stores packs. The data may be reused after PutPack has returned. PutPack is called by several goroutines.
type Sink interface {
	PutPack(ctx context.Context, id format.PackID, data []byte) error
}

// Source reads from packs that a Sink stored.
type Source interface {
	// ReadPack fills buf with the bytes of a pack from an offset on. Fewer are an error. After an error buf is not used again: a
	// request that was given up may still write to it. It is called by several goroutines.
	ReadPack(ctx context.Context, id format.PackID, offset int64, buf []byte) error
}

// Pack is a pack that a backup needs.
type Pack struct {
	ID     format.PackID
	Size   int64  // bytes
	CRC32C uint32 // of all bytes, as stores compute it themselves; verified when a backup is read back
	Live   int64  // stored bytes that this backup needs of it: of a frame, the part that it uses of the content
}

// Root is a backup as its commit describes it: all that is needed to find everything else.
type Root struct {
	Table  []byte // the page table, encoded (and sealed, if there is a key)
	Packs  []Pack // every pack that a page or an entry needs
	Digest format.Hash
}
