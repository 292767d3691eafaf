//go:build long

package history

// exploreAll makes the largest scenarios be explored in both ways, not in one only.
const exploreAll = true
