# shellcheck shell=bash
# shellcheck disable=SC2154 # demo.sh has the variables that are used here and not set
# The volumes of the demo: directories, which nothing limits, or what hack/vm has in its machine. Sourced by demo.sh.

# prepare_volumes makes a volume group for each node, as if they were two machines, with a thin pool in it.
prepare_volumes() {
	local node
	[[ $driver == lvm ]] || return 0
	for node in node-a node-b; do
		truncate --size 10G "$work/$node.disk"
		show vgcreate --quiet "$node" "$(losetup --find --show "$work/$node.disk")"
		show lvcreate --quiet --yes --type thin-pool --extents 90%FREE --zero y --name pool "$node"
	done
}

# drop_volumes removes what prepare_volumes has made, and the templates in it.
drop_volumes() {
	[[ $driver == lvm ]] || return 0
	show lvs --options lv_name,lv_size,data_percent,lv_tags node-a node-b
	vgremove --quiet --force --yes node-a node-b
	losetup --detach-all
}

# volume_class NODE prints the volume class of a node's configuration.
volume_class() {
	case $driver in
	directory) echo '{"driver": "directory", "allowUnlimited": true}' ;;
	quota)
		mkdir -m 0711 "$work/$1/limited"
		echo '{"driver": "quota", "path": "'"$work/$1/limited"'"}'
		;;
	lvm) echo '{"driver": "lvm", "volumeGroup": "'"$1"'", "thinPool": "pool", "filesystem": "xfs", "templates": 2}' ;;
	*) fail "VOLUME is directory, quota or lvm, not $driver" ;;
	esac
}

# volumes_of NODE prints the directory of a node's volumes.
volumes_of() {
	if [[ $driver == quota ]]; then echo "$work/$1/limited"; else echo "$work/$1/volumes/default"; fi
}

# logical_volumes NODE lists the logical volumes of workspaces in the pool of a node; templates are a cache.
logical_volumes() {
	[[ $driver == lvm ]] || return 0
	LVM_SUPPRESS_FD_WARNINGS=1 lvs --noheadings --options lv_name --select 'lv_name=~^ws[.]' "$1"
}

# disk_is_empty NODE says whether nothing is left of any workspace on a node: no volume, no journal entry, nothing half-removed.
disk_is_empty() {
	local left
	left=$(find "$(volumes_of "$1")" "$work/$1/journal" -mindepth 1 ! -name .trash ! -name .owner ! -name .private -print -quit)
	[[ -z $left && -z $(logical_volumes "$1") ]]
}

# hit_limit DIR writes as the workspace's user until that is refused, where volumes have limits.
hit_limit() {
	[[ $driver != directory ]] || return 0
	say "A writer stops at the volume's size:"
	! (below "$1" setpriv --reuid=33333 --regid=33333 --clear-groups head -c 3G /dev/zero >"$1/recording" 2>"$work/refused") ||
		fail "nothing stopped a writer at the size of the volume"
	sed 's/^/  /' "$work/refused"
	say "  after $(stat -c %s "$1/recording") bytes"
	rm "$1/recording"
}
