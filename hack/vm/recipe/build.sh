#!/usr/bin/env bash
# Makes the kernel, the initial file system in memory and the root disk of the VM: vmlinuz, initrd and root.img.
# Runs as root in mount and process namespaces of its own, so that nothing of it stays when it is interrupted.
# usage: build.sh OUTPUT_DIRECTORY
set -euo pipefail
# As the first process of its namespace, it would ignore an interrupt.
trap 'exit 130' INT TERM

recipe=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
root=$out/root
modules_of_initrd=(virtio_pci virtio_blk ext4)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

stage() {
	local name=$1 start=$SECONDS
	shift
	echo "vm image: $name"
	# What the programs say is of interest only if they fail. In the background, the function ends at its first error,
	# which it would not do as the condition of an if.
	"$@" >"$out/log" 2>&1 &
	if ! wait $!; then
		tail -n 40 "$out/log" >&2
		echo "error: vm image: $name failed" >&2
		exit 1
	fi
	echo "vm image: $name took $((SECONDS - start)) s"
}

# The mirror from which this machine itself has its packages.
mirror() {
	# shellcheck disable=SC2016 # apt fills these in.
	apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk -v codename="$1" '$1 == codename && $2 == "main" { print $3; exit }'
}

download_kernel() {
	local package
	apt-get -qq -o DPkg::Lock::Timeout=300 update
	package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
	if [[ -z $package ]]; then
		echo "apt knows no linux-image-cloud-amd64: the VM needs a machine with Debian's packages for amd64"
		return 1
	fi
	cd "$out"
	apt-get -o APT::Sandbox::User=root download "$package"
	dpkg -x "$package"_*.deb kernel
	cp kernel/boot/vmlinuz-* vmlinuz
	ls kernel/lib/modules >version
	rm "$package"_*.deb
}

make_root() {
	local codename url proxy="" packages
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	url=$(mirror "$codename")
	if [[ -z $url ]]; then
		echo "apt's sources name no mirror of Debian's release '$codename'"
		return 1
	fi
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	[[ -n $proxy && $proxy != DIRECT ]] && export http_proxy=$proxy
	packages=$(paste -sd, "$recipe/packages")
	debootstrap --variant=minbase --include="$packages" "$codename" "$root" "$url"
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,info,man}
	mkdir -p "$root/lib/modules"
	cp -a "$out/kernel/lib/modules/." "$root/lib/modules/"
	chroot "$root" depmod "$(<"$out/version")"
	# The input disk is mounted here before the root disk's init would start.
	mkdir "$root/vm"
	echo vm >"$root/etc/hostname"
	printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$root/etc/hosts"
}

# Modules that the kernel needs to see its disks, numbered in the order in which they are loaded.
copy_modules() {
	local module number=100
	for module in "${modules_of_initrd[@]}"; do
		chroot "$root" modprobe -S "$(<"$out/version")" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
		number=$((number + 1))
		case $module in
		*.xz) xz -dc "$root$module" ;;
		*.zst) zstd -dc "$root$module" ;;
		*) cat "$root$module" ;;
		esac >"$1/$number.ko"
	done
}

make_initrd() {
	local tree=$out/initrd.tree
	mkdir -p "$tree"/{bin,dev,modules,new,proc,sys}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	if ! chroot "$tree" /bin/busybox true; then
		echo "busybox needs libraries: install Debian's package busybox-static"
		return 1
	fi
	ln -s busybox "$tree/bin/sh"
	install -m 755 "$recipe/initrd.sh" "$tree/init"
	copy_modules "$tree/modules"
	(cd "$tree" && find . -print0 | cpio --quiet --null --create --format=newc --owner=0:0) | gzip -1 >"$out/initrd"
}

make_disk() {
	mke2fs -q -t ext4 -L root -d "$root" "$out/root.img" 4G
}

[[ $(dpkg --print-architecture) == amd64 ]] || {
	echo "error: vm image: the VM is made for amd64 only" >&2
	exit 1
}
stage "kernel" download_kernel
stage "root file system" make_root
stage "initial file system" make_initrd
stage "root disk" make_disk
rm -rf "$root" "$out"/{kernel,initrd.tree,log}
chmod 644 "$out"/*
# The cache belongs to the person, also where sudo was needed.
chown -R --reference="$(dirname "$out")" "$out"
