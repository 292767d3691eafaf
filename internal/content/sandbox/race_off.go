//go:build !race

package sandbox

const shadowed = false
