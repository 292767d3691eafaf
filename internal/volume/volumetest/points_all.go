//go:build long

package volumetest

const everyPoint = true
