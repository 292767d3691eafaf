//go:build !amd64 && !arm64

package sandbox

// There is no filter for this processor.
const (
	arch   = 0
	newest = 0
)

func refusedHere() []uint32 { return nil }

func makesNodes() map[uint32]uint32 { return nil }
