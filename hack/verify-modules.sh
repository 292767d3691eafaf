#!/usr/bin/env bash
# Checks that go.mod and go.sum are tidy and that the modules on this machine are the ones they name.
set -euo pipefail

cd "$(dirname "$0")/.."
go mod tidy -diff
go mod verify
