#!/usr/bin/env bash
# Runs a command as root, with the caller's environment.
# usage: hack/as-root.sh COMMAND [ARGUMENT...]
set -euo pipefail

if ((EUID == 0)); then
	exec "$@"
fi
if ! command -v sudo >/dev/null; then
	echo "error: $1 must run as root: become root, or install sudo" >&2
	exit 1
fi
exec sudo -E env "PATH=$PATH" "$@"
