package archive

import (
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/memory"
)

// What the parts of a job take, in bytes.
const (
	// blockBuffer holds a block and what shows that a file has grown, or the zstd frame of a block, which may be a little larger.
	blockBuffer = format.BlockSize + 64<<10
	// encoderMemory is what an encoder takes when it has compressed a block: 2.3 MiB were measured.
	encoderMemory = 5 << 19
	// readerMemory is that of a worker that reads and compresses.
	readerMemory = 2*blockBuffer + encoderMemory
	// writerMemory is that of a worker that decompresses and writes.
	writerMemory = blockBuffer + 1<<20
	// packVerifierMemory is that of a worker that reads whole packs.
	packVerifierMemory = format.PackTarget + writerMemory
	// moverMemory is what moving content takes besides its workers: ranges that are read ahead, the frame at hand and two blocks.
	moverMemory = (aheadSpans+2)*rangeSize + 3*blockBuffer
)

// verifyMemory is what a verification takes for the pages, and with readData for a pack, too.
func verifyMemory(readData bool) int64 {
	if readData {
		return rangeSize + packVerifierMemory
	}
	return rangeSize + writerMemory
}

// unbounded is the share of what nobody has to wait for.
func unbounded() *memory.Share { return &memory.Share{} }
