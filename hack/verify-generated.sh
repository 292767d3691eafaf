#!/usr/bin/env bash
# Generates everything again and fails if a file differs from what was there.
set -euo pipefail

cd "$(dirname "$0")/.."

# Sums, not git: the answer is the same in a clean clone and with work in progress.
sums() {
	find api config/crd/bases docs/api.md docs/cli.md docs/service.md docs/operations.md config/schema.json internal/config/schema.json -type f \
		\( -name 'zz_generated*' -o -name '*.pb.go' -o -path '*/applyconfiguration/*' -o -name '*.yaml' -o -name '*.md' -o -name '*.json' \) \
		-exec sha256sum {} + 2>/dev/null | sort -k 2
}

before=$(sums)
make --no-print-directory generate manifests api-docs reference >/dev/null
after=$(sums)
if [[ $before != "$after" ]]; then
	echo "error: generated files were not up to date; they are now (run: make generate manifests api-docs reference):" >&2
	diff <(echo "$before") <(echo "$after") | sed -n 's/^[<>] [0-9a-f]*  /  /p' | sort -u >&2
	exit 1
fi
