#!/usr/bin/env bash
# Runs a command as a named stage and says how long it took.
# usage: hack/stage.sh NAME COMMAND [ARGUMENT...]
set -euo pipefail

name=$1
shift
echo "==> $name"
start=$SECONDS
status=0
"$@" || status=$?
if ((status == 0)); then
	echo "==> $name: passed in $((SECONDS - start)) s"
else
	echo "==> $name: FAILED after $((SECONDS - start)) s" >&2
fi
exit "$status"
