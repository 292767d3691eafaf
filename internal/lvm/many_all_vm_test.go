//go:build vm && long

package lvm

// many is how many volumes there are at once.
const many = 200
