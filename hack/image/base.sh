#!/usr/bin/env bash
# Makes a small Debian, in place of the one that the Dockerfile names, and writes it as an archive of docker's kind. It comes from
# the mirror that this machine itself uses. Runs as root, in the surroundings that build.sh makes.
# usage: base.sh NAME FILE
set -euo pipefail

name=$1 file=$2
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
tree=$TMPDIR/base

# The mirror from which this machine has its packages of a release.
mirror() {
	# shellcheck disable=SC2016 # apt fills these in.
	apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk -v codename="$1" '$1 == codename && $2 == "main" { print $3; exit }'
}

url=$(mirror "$codename")
if [[ -z $url ]]; then
	echo "error: apt's sources name no mirror of Debian's release '$codename'" >&2
	exit 1
fi
debootstrap --variant=minbase "$codename" "$tree" "$url"

# As in the images that are published as debian:*-slim: licences stay, manuals and translations do not come.
cat >"$tree/etc/dpkg/dpkg.cfg.d/small" <<'CONFIG'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/groff/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
CONFIG
for suite in "$codename" "$codename-updates" "$codename-security"; do
	url=$(mirror "$suite")
	[[ -z $url ]] || echo "deb $url $suite main"
done >"$tree/etc/apt/sources.list"
chroot "$tree" apt-get -qq update
chroot "$tree" apt-get -qq --yes upgrade
chroot "$tree" apt-get clean
find "$tree/usr/share/doc" -mindepth 2 ! -type d ! -name copyright -delete
rm -rf "$tree"/usr/share/{groff,info,lintian,locale,man}/* "$tree"/var/lib/apt/lists/* "$tree"/var/cache/{apt,ldconfig}/* \
	"$tree"/var/{cache/debconf,lib/dpkg}/*-old "$tree"/var/log/* "$tree"/tmp/* "$tree"/etc/{hostname,resolv.conf} "$tree"/etc/*-

chmod 755 "$tree"
container=$(buildah from scratch)
buildah copy --quiet "$container" "$tree" /
buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet --rm --format docker "$container" "$name"
buildah push --quiet "$name" "docker-archive:$file:$name"
