#!/usr/bin/env bash
# Builds one Go tool of a tools module into a file, unless the file is there.
# usage: hack/tool.sh MODULE_DIR PACKAGE FILE
set -euo pipefail

module=$1 package=$2 file=$3
[[ -x $file ]] && exit 0

mkdir -p "$(dirname "$file")"
# Two makes may want the same tool: the second one waits and then finds it built.
exec 9>"$file.lock"
flock 9
[[ -x $file ]] && exit 0

echo "building $(basename "$file") (once; kept in $(dirname "$file"))" >&2
start=$SECONDS
# The last step is a rename, so an interrupted build leaves no half-written tool.
GOWORK=off CGO_ENABLED=0 go build -C "$module" -trimpath -ldflags='-s -w' -o "$file.new" "$package"
mv "$file.new" "$file"
echo "built $(basename "$file") in $((SECONDS - start)) s" >&2
