#!/usr/bin/env bash
# Runs kubectl: the one that KUBECTL names, else the one that is installed, else one that is built once.
# usage: [KUBECTL=FILE] hack/kubectl.sh ARGUMENT...
set -euo pipefail

kubectl=${KUBECTL:-$(command -v kubectl || true)}
if [[ -z $kubectl ]]; then
	kubectl=$(cd "$(dirname "$0")/.." && go run ./hack/cluster/cmd tools kubectl)/kubectl
fi
exec "$kubectl" "$@"
