//go:build race

package sandbox

// shadowed: the race detector maps more memory than any limit allows.
const shadowed = true
