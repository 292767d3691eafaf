#!/usr/bin/env bash
# Runs every fuzz target for a while.
# usage: hack/fuzz.sh TIME
set -euo pipefail

time=$1
cd "$(dirname "$0")/.."
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# On a busy machine the fuzzer may take the end of its own time for a failure. What it finds is different: that names an input.
fuzz() {
	local function=$1 package=$2 attempt
	for attempt in 1 2 3; do
		go test -run '^$' -fuzz "^$function\$" -fuzztime "$time" "$package" 2>&1 | tee "$output" && return
		grep -q '^ *context deadline exceeded$' "$output" && ! grep -q 'Failing input' "$output" || return 1
		echo "attempt $attempt ended by its own deadline"
	done
	return 1
}

while IFS=: read -r file function; do
	function=${function#func }
	echo "==> $function"
	start=$SECONDS
	fuzz "$function" "$(dirname "$file")" || { echo "==> $function: FAILED after $((SECONDS - start)) s" >&2 && exit 1; }
	echo "==> $function: passed in $((SECONDS - start)) s"
done < <({ grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . || true; } | sort)
