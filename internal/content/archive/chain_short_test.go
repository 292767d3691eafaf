//go:build !long

package archive_test

// chainLength is how many backups follow each other in a test of many.
const chainLength = 50
