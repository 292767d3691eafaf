#!/usr/bin/env bash
# Runs every fuzz target for a while.
# usage: hack/fuzz.sh TIME
set -euo pipefail

time=$1
cd "$(dirname "$0")/.."
{ grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . || true; } | sort |
	while IFS=: read -r file function; do
		hack/stage.sh "$function" go test -run '^$' -fuzz "^${function#func }\$" -fuzztime "$time" "$(dirname "$file")"
	done
