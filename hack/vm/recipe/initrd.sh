#!/bin/sh
# First program of the VM: makes the disks visible, mounts the root disk and the input disk, and hands over to the
# latter's init.
bb=/bin/busybox

power_off() {
	echo "initrd: $1"
	echo o >/proc/sysrq-trigger
	$bb sleep 10
}

$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
read -r arguments </proc/cmdline
case " $arguments " in
*" vm.probe "*) power_off "it boots" ;;
esac
for module in /modules/*.ko; do
	$bb insmod "$module" || echo "initrd: cannot load $module"
done
# disk prints the device whose serial number is given. It appears some time after its driver.
disk() {
	tries=0
	while [ $tries -lt 600 ]; do
		for serial in /sys/block/vd*/serial; do
			if [ -e "$serial" ] && [ "$($bb cat "$serial")" = "$1" ]; then
				device=${serial%/serial}
				echo "/dev/${device##*/}"
				return
			fi
		done
		tries=$((tries + 1))
		$bb sleep 0.05
	done
	return 1
}

# mount_disk mounts the disk of a name.
mount_disk() {
	device=$(disk "$1") || power_off "there is no disk $1"
	$bb mount -t ext4 "$device" "$2" || power_off "cannot mount the disk $1"
}

mount_disk root /new
mount_disk input /new/vm
$bb umount /sys
$bb umount /proc
$bb mount -o move /dev /new/dev
exec $bb switch_root /new /bin/bash /vm/guest/init.sh
