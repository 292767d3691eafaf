#!/bin/bash
# Init of the VM: prepares what a node has, then runs /vm/plan.sh, which the host wrote and which consists of calls of
# the functions below. What is printed here goes to the console.
set -uo pipefail

export PATH=/vm/guest/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root LC_ALL=C.UTF-8
# LVM complains of the ports, which are open here, not in jobs.
lvm=(env LVM_SUPPRESS_FD_WARNINGS=1)

group=ws pool=pool
results=/run/vm/results

die() {
	echo "vm: $*"
	power_off
}

power_off() {
	sync
	echo o >/proc/sysrq-trigger
	# Nothing may follow, and init must not end before the power does.
	while :; do sleep 1; done
}

mount_system() {
	mount -t proc -o nosuid,nodev,noexec proc /proc
	mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
	mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
	mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
	mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
	mkdir -p /dev/pts /dev/shm /run/lock "$results" /disks
	mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
	ln -sfn /proc/self/fd /dev/fd
	ln -sfn /proc/self/fd/0 /dev/stdin
	ln -sfn /proc/self/fd/1 /dev/stdout
	ln -sfn /proc/self/fd/2 /dev/stderr
	mount --make-rshared /
	chmod 755 /vm/guest/bin/*
}

start_system() {
	hostname vm
	ip link set lo up
	# Without udev, LVM waits for device nodes in vain.
	/usr/lib/systemd/systemd-udevd --daemon
	modprobe --all loop dm_mod virtio_console
	# Only what is needed: the drivers of all other devices take seconds to load.
	udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc --subsystem-match=virtio-ports
	udevadm settle
}

# network lets programs reach the host, at 10.0.2.2.
# usage: network [ADDRESS]
network() {
	modprobe virtio_net
	udevadm settle
	{ ip link set eth0 up && ip address add "${1:-10.0.2.15}/24" dev eth0; } || die "there is no network"
}

# open_ports connects descriptor 3 with the host's reader of results and 4 with its output.
open_ports() {
	if [[ -e /dev/virtio-ports/results ]]; then
		exec 3>/dev/virtio-ports/results 4>/dev/virtio-ports/output
	else
		exec 3>/dev/null 4>/dev/null
	fi
}

# send gives a file or directory below /run/vm to the host.
send() { tar --create --blocking-factor=1 --directory=/run/vm "$1" >&3; }

# event tells the host how far we are.
event() {
	: >"/run/vm/$1"
	send "$1"
}

device() {
	local disk
	for disk in /sys/block/vd*; do
		if [[ -e $disk/serial && $(<"$disk/serial") == "$1" ]]; then
			echo "/dev/${disk##*/}"
			return
		fi
	done
	die "there is no disk $1"
}

empty() { [[ -z $(blkid --probe --output value --match-tag TYPE "$1") ]]; }

# The disks. Those of an earlier run are used as they are.

disk_xfs() {
	local device
	device=$(device xfs)
	if empty "$device"; then mkfs.xfs -q "$device"; fi
	mount -o prjquota "$device" /disks/xfs
}

disk_ext4() {
	local device
	device=$(device ext4)
	if empty "$device"; then mkfs.ext4 -q -O project,quota -E quotatype=usrquota:grpquota:prjquota "$device"; fi
	mount -o prjquota "$device" /disks/ext4
}

disk_lvm() {
	local device
	device=$(device lvm)
	if empty "$device"; then
		"${lvm[@]}" vgcreate --quiet "$group" "$device" &&
			"${lvm[@]}" lvcreate --quiet --type thin-pool --extents 90%FREE --name "$pool" "$group" &&
			"${lvm[@]}" lvcreate --quiet --thin --virtualsize 16G --name tmp "$group/$pool" &&
			mkfs.xfs -q "/dev/$group/tmp"
	else
		"${lvm[@]}" vgchange --quiet --activate y "$group"
	fi && mount -o prjquota "/dev/$group/tmp" /disks/lvm
}

# disk prepares and mounts one disk on /disks/NAME.
disk() {
	mkdir -p "/disks/$1"
	"disk_$1" || die "cannot prepare the disk $1"
	export "WS_DAEMON_VM_${1^^}=/disks/$1"
	[[ $1 != lvm ]] || export WS_DAEMON_VM_GROUP=$group WS_DAEMON_VM_POOL=$pool
}

ready() { event ready; }

milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }

# leftovers lists what a job should have removed.
leftovers() {
	[[ ! -d /sys/fs/cgroup/job ]] || xargs --max-args=1 --no-run-if-empty ps --no-headers -o args </sys/fs/cgroup/job/cgroup.procs | sed 's/^/process /'
	findmnt --raw --noheadings --output TARGET | sed 's/^/mount /'
	losetup --noheadings --output NAME,BACK-FILE | sed 's/^/loop device /'
	find "$1" -mindepth 1 -maxdepth 1 -printf 'file %p\n'
	"${lvm[@]}" lvs --noheadings --options vg_name,lv_name 2>/dev/null | sed 's/^ */logical volume /'
}

# kill_job kills what a job has left running.
kill_job() {
	echo 1 >/sys/fs/cgroup/job/cgroup.kill
	until rmdir /sys/fs/cgroup/job 2>/dev/null; do sleep 0.05; done
}

# execute runs a command in a control group of its own, with its output to the host.
# usage: execute TMPDIR DIRECTORY SECONDS COMMAND [ARGUMENT...]
execute() (
	export TMPDIR=$1
	cd "$2" || exit 125
	mkdir -p /sys/fs/cgroup/job
	echo "$BASHPID" >/sys/fs/cgroup/job/cgroup.procs
	# The signal makes a Go program tell what it was doing.
	exec timeout --signal=QUIT --kill-after=10 "${@:3}" </dev/null >&4 2>&4 3>&- 4>&-
)

# job runs a command and sends its exit code, its time and the files that it made in $WS_DAEMON_VM_RESULTS.
# usage: job NAME DISK DIRECTORY SECONDS COMMAND [ARGUMENT...]
job() {
	local name=$1 tmp=/disks/$2/tmp directory=$3 start code
	shift 3
	[[ $tmp != /disks//tmp ]] || tmp=/tmp/job
	export WS_DAEMON_VM_RESULTS=$results/$name
	mkdir -p "$tmp" "$WS_DAEMON_VM_RESULTS"
	chmod 1777 "$tmp"
	echo "=== $name" >&4
	leftovers "$tmp" | sort >/run/vm/before
	start=$(milliseconds)
	execute "$tmp" "$directory" "$@"
	code=$?
	echo $(($(milliseconds) - start)) >"$WS_DAEMON_VM_RESULTS/milliseconds"
	leftovers "$tmp" | sort | comm -13 /run/vm/before - >"$WS_DAEMON_VM_RESULTS/left"
	kill_job
	echo "$code" >"$WS_DAEMON_VM_RESULTS/code"
	send "results/$name"
}

# shell gives the console to a person.
shell() {
	stty -F /dev/ttyS0 rows "$1" columns "$2" sane
	if [[ -d /vm/src ]]; then cd /vm/src || return; fi
	TERM=$3 setsid --ctty --wait bash -i </dev/ttyS0 >/dev/ttyS0 2>&1
}

# finish leaves the disks as a clean shutdown does.
finish() {
	local disk
	cd /
	for disk in /disks/*; do
		! mountpoint --quiet "$disk" || umount "$disk" || echo "vm: $disk is still in use"
	done
	[[ ! -d /disks/lvm ]] || "${lvm[@]}" vgchange --quiet --activate n "$group"
	event finished
	power_off
}

trap power_off EXIT
mount_system
start_system
open_ports
# shellcheck source=/dev/null
. /vm/plan.sh
finish
