// Package vm runs programs, above all compiled Go tests, in a virtual machine with a kernel of its own: what the kernel of
// this machine may lack (project quota, device mapper) and what must not happen to it (hangs, power cuts) happens there.
//
// The kernel and the root file system are Debian's, made once by recipe/build.sh from the mirror that this machine's apt
// uses, and kept outside the repository. QEMU runs them, with KVM where that boots and without it elsewhere. Nothing that
// the guest writes stays, except what it sends: the root disk is a snapshot, and the other disks are sparse files that are
// removed in the end, unless the caller asks for them to be kept. A [Machine] is the other kind: it runs beside its caller, with
// disks that outlive its power, and is reached by the network.
//
// How things go in and out:
//
//   - An ext4 image, mounted on /vm, carries the guest's init (guest/init.sh), the plan (plan.sh, calls of functions of
//     the init), the working tree (src) and the test programs (bin).
//   - Two virtio serial ports come back: one with the output of what runs, one with a stream of tar archives. A file
//     in it is either an event (ready, finished) or the result of a job.
//   - The console goes to a file, whose end is shown when the guest does not get to its own end.
//
// QEMU dies with the process that started it, whatever kills that. Files of a run that was killed are removed by the next.
package vm
