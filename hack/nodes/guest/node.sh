# shellcheck shell=bash
# A node: what the init of a distribution would start. The VM's init, which has the functions that are not here, sources it.

here=/vm/node
# shellcheck source=/dev/null
. "$here/settings" # NODE, ADDRESS, API_PORT, DISK (lvm or xfs), PODS (the network of this node's pods)
export PATH=$here/bin:$PATH

# supervise keeps a program running, as systemd does. Its log stays when the power is cut.
supervise() {
	local program=$1
	while :; do
		"$@" >>"/var/log/$program.log" 2>&1
		echo "--- $program ended with status $?" >>"/var/log/$program.log"
		sleep 1
	done &
}

identify() {
	hostname "$NODE"
	[[ -s /etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
}

kernel() {
	modprobe --all overlay veth bridge br_netfilter nft_chain_nat nft_masq nft_nat dm_thin_pool xfs
	sysctl --quiet vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1 net.ipv4.ip_forward=1
}

# routes lead pods out, and to the API server at its service's address.
routes() {
	ip route add default via 10.0.2.2
	nft -f - <<-NFT
		table ip node {
			chain lead {
				type nat hook prerouting priority dstnat
				ip daddr 10.0.0.1 tcp dport 443 dnat to 10.0.2.2:$API_PORT
			}
			chain own {
				type nat hook output priority -100
				ip daddr 10.0.0.1 tcp dport 443 dnat to 10.0.2.2:$API_PORT
			}
			chain out {
				type nat hook postrouting priority srcnat
				ip saddr $PODS ip daddr != $PODS masquerade
			}
		}
	NFT
}

# The disk for volumes, as docs/volumes.md says. What is on it from before stays.

# shellcheck disable=SC2154 # The init has "lvm".
volumes_lvm() {
	local device
	device=$(device lvm)
	if empty "$device"; then
		"${lvm[@]}" vgcreate --quiet ws "$device"
		"${lvm[@]}" lvcreate --quiet --type thin-pool --extents 90%FREE --poolmetadatasize 64m --zero y --name pool ws
	fi
}

volumes_xfs() {
	local device
	device=$(device xfs)
	if empty "$device"; then mkfs.xfs -q "$device"; fi
	mount -o prjquota "$device" /mnt/workspaces
	install -d -m 711 /mnt/workspaces/volumes
}

directories() {
	mkdir -p /mnt/workspaces /etc/cni/net.d /etc/lvm /run/lvm /run/lock/lvm
	install -d -m 711 /var/lib/ws-daemon
}

containers() {
	sed "s|@PODS@|$PODS|" "$here/cni.conflist" >/etc/cni/net.d/10-pods.conflist
	supervise containerd --config "$here/containerd.toml"
	supervise kubelet --config="$here/kubelet.yaml" --kubeconfig="$here/kubeconfig" --hostname-override="$NODE" --node-ip="$ADDRESS"
}

identify
kernel
supervise agent ":9000"
routes || die "cannot lead pods to the API server"
directories
"volumes_$DISK" || die "cannot prepare the disk $DISK"
containers
wait
