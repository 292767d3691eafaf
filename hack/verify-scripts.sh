#!/usr/bin/env bash
# Checks the shell scripts.
set -euo pipefail

cd "$(dirname "$0")/.."
find hack test .ci -type f \( -name '*.sh' -o -path .ci/run \) 2>/dev/null | sort | xargs shellcheck
