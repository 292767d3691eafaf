#!/usr/bin/env bash
# Builds the image of the Dockerfile where there is no container engine and nothing can be pulled: by Debian's buildah, on a base
# that debootstrap makes, with the Go of this machine. The result is an archive of docker's kind: docker load, ctr images import.
# What takes long is kept in ~/.cache/ws-daemon/image: the base, for a week, since Debian mends what is in it.
# usage: hack/image/build.sh IMAGE VERSION FILE
set -euo pipefail

if [[ ${1:-} != --in-namespaces ]]; then
	file=$(realpath -m "$3")
	cd "$(dirname "$0")/../.."
	hack/packages.sh buildah debootstrap
	go mod download
	# The mounts and processes of a build end with it, also where it is interrupted.
	exec hack/as-root.sh env CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/ws-daemon/image" GO="$(go env GOROOT)" \
		GO_MODULES="$(go env GOMODCACHE)" GO_BUILDS="$(go env GOCACHE)" OWNER="$(id -u):$(id -g)" \
		SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}" \
		unshare --mount --pid --fork --kill-child --mount-proc hack/image/build.sh --in-namespaces "$1" "$2" "$file"
fi

# As the first process of its namespace, it would ignore an interrupt.
trap 'exit 130' INT TERM
image=$2 version=$3 file=$4
# As others would call an image whose name says nothing else.
[[ $image == */* ]] || image=docker.io/library/$image
base=localhost/ws-daemon-base
work=$CACHE/work

# The caches belong to the person, also where sudo was needed.
tidy() {
	rm -rf "$work"
	[[ $OWNER == 0:0 ]] || find "$CACHE" "$GO_BUILDS" -uid 0 -exec chown -h "$OWNER" {} +
}

# One build at a time; what an earlier one that was killed has left goes first.
mkdir -p "$CACHE" "$GO_BUILDS"
exec 9>"$CACHE/lock"
flock 9
rm -rf "$work"
mkdir -p "$work/tmp"
trap tidy EXIT
export TMPDIR=$work/tmp BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/storage" "$work/run" >"$CONTAINERS_STORAGE_CONF"
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[[ -z ${proxy:-} || $proxy == DIRECT ]] || export http_proxy=$proxy

find "$CACHE" -maxdepth 1 -name 'base-*' -mtime +6 -delete
key=$(cat hack/image/base.sh /etc/os-release | sha256sum)
archive=$CACHE/base-${key:0:16}.tar
if [[ ! -e $archive ]]; then
	echo "image: making the base (once a week; kept in $archive)"
	hack/image/base.sh "$base" "$archive.new" >"$work/log" 2>&1 || {
		tail -n 40 "$work/log" >&2
		echo "error: image: the base could not be made" >&2
		exit 1
	}
	mv "$archive.new" "$archive"
fi
buildah pull --quiet "docker-archive:$archive" >/dev/null
# The compiler and its caches are shown in directories that every Debian has, so that none stays behind in the image.
container=$(buildah from --pull=never "$base")
buildah config --env PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPROXY=off --env GOTOOLCHAIN=local \
	--env GOMODCACHE=/srv --env GOCACHE=/media "$container"
buildah commit --quiet --rm "$container" "$base-go" >/dev/null

buildah build --pull=never --timestamp "$SOURCE_DATE_EPOCH" \
	--build-arg BASE="$base" --build-arg BUILD_BASE="$base-go" --build-arg VERSION="$version" \
	--volume "$GO:/opt:ro" --volume "$GO_MODULES:/srv:ro" --volume "$GO_BUILDS:/media" \
	--tag "$image" . >"$work/log" 2>&1 || {
	tail -n 40 "$work/log" >&2
	echo "error: image: the build failed" >&2
	exit 1
}
mkdir -p "$(dirname "$file")"
rm -f "$file"
buildah push --quiet "$image" "docker-archive:$file:$image"
chown "$OWNER" "$file"
echo "image: $image is in $file ($(du -h "$file" | cut -f 1))"
