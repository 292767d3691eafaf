// Package lvm is the driver of volumes that are thin logical volumes, each with a file system of its own: hard limits,
// point-in-time views for backups, and clones that take no longer than an empty volume.
//
//	<group>/<pool>                        the thin pool; a tag says to which working area it belongs
//	<group>/ws.<id>                       a volume; tags say that it is ours, and what a crash left it to be
//	<group>/ws.<id>.view-<random>         a read-only view of one moment
//	<root>/<id>/                          where the volume is mounted: content/ and .ws/ as in package volume
//	<root>/.private/<logical volume>/     where views are mounted, and clones before they are finished
//
// Everything is found again from the names and tags of logical volumes: mounting needs neither journal nor API nor store.
// Mount points are immutable and hold a file in place of .ws, so that a volume that is not mounted is never taken for an
// empty one.
//
// Programs are run in one place, [tools.run]: with a deadline, the C locale and an environment that has nothing else. Growing
// file systems, mounting, discarding and measuring take system calls.
package lvm
