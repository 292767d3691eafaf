#!/usr/bin/env bash
# Installs Debian packages that are missing.
# usage: hack/packages.sh PACKAGE...
set -euo pipefail

missing=()
for package in "$@"; do
	case $package in
	gcc) programs=(gcc) extra=(libc6-dev) ;;
	attr) programs=(getfattr setfattr) extra=() ;;
	acl) programs=(getfacl setfacl) extra=() ;;
	libcap2-bin) programs=(/sbin/setcap /sbin/getcap) extra=() ;;
	borgbackup) programs=(borg) extra=() ;;
	busybox-static) programs=(busybox) extra=() ;;
	e2fsprogs) programs=(/sbin/mkfs.ext4) extra=() ;;
	xfsprogs) programs=(/sbin/mkfs.xfs) extra=() ;;
	*) programs=("$package") extra=() ;;
	esac
	for program in "${programs[@]}"; do
		if ! command -v "$program" >/dev/null; then
			missing+=("$package" "${extra[@]}")
			break
		fi
	done
done
((${#missing[@]} == 0)) && exit 0

if ! command -v apt-get >/dev/null; then
	echo "error: missing programs; install what your system calls the Debian packages: ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=("$(dirname "$0")/as-root.sh" apt-get -qq -y -o DPkg::Lock::Timeout=300)
"${install[@]}" update
"${install[@]}" install --no-install-recommends "${missing[@]}"
