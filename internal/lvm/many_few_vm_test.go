//go:build vm && !long

package lvm

// many is how many volumes there are at once; 200 take half an hour where every instruction is emulated.
const many = 8
