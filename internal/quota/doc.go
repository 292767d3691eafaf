// Package quota limits directories by project quota, on XFS and ext4, and has the volume driver that does so.
//
// Every file of such a filesystem has a project id. The kernel counts blocks and inodes of each project, and stops writers at
// the project's hard limit. A directory with the flag "inherit" gives its id to whatever is made in it, and refuses links
// and renames from other projects (EXDEV). The package talks to the kernel by ioctl and quotactl_fd and runs no program.
//
// In a volume of the [Driver] (see package volume for its layout):
//
//	<root>/<id>/          has the project id, without the flag: it is where the id is found again after a restart
//	<root>/<id>/.ws/      has none, so that the marker can be written when the volume is full
//	staging, content      have the id and the flag, from before the first byte is written
//
// A project id is free if no limit is set for it and it counts no inode. That is read from the kernel before an id is taken,
// and after: an id that was taken twice at the same time counts two directories, and both owners take another one. There is
// no other record, so that none can be lost. An id with a limit that counts nothing was left by a crash and is released.
//
// What is being filled may take 1/64 more than the volume has (at least 1 MiB): a restored tree can need a few blocks more for its
// directories than the one that was backed up, and a full workspace must be restorable. The limit is what was asked for
// from before the moment at which users see the content.
//
// On ext4 no limit holds for a process with CAP_SYS_RESOURCE, so the driver takes it from the whole process, for good.
package quota
