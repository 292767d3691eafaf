#!/usr/bin/env bash
# Deletes what `make deploy` has applied from a kustomization, but no data: the CRDs stay, and with them all objects; so does the
# namespace, in which the credentials of the store and the keys of backups are kept.
# usage: hack/undeploy.sh DIRECTORY
set -euo pipefail

directory=$1
cd "$(dirname "$0")/.."
kubectl=$(go run ./hack/cluster/cmd tools)/kubectl

# One document each, without those whose deletion would delete what is in them.
hack/render.sh unused "$directory" |
	awk 'BEGIN { RS = "---\n" } !/(^|\n)kind: (CustomResourceDefinition|Namespace)\n/ { printf "---\n%s", $0 }' |
	"$kubectl" delete --ignore-not-found -f -
echo "The CRDs, all objects and the namespace ws-daemon-system stay. Without daemons nothing is backed up. To remove the CRDs: make uninstall"
