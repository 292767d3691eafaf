#!/usr/bin/env bash
# Deletes what `make deploy` has applied from a kustomization, but no data: the CRDs stay, and with them all objects; so does the
# namespace, in which the credentials of the store and the keys of backups are kept.
# usage: hack/undeploy.sh DIRECTORY
set -euo pipefail

directory=$1
cd "$(dirname "$0")/.."

# One document each, without those whose deletion would delete what is in them.
hack/render.sh unused "$directory" |
	awk 'BEGIN { RS = "---\n" } !/(^|\n)kind: (CustomResourceDefinition|Namespace)\n/ { printf "---\n%s", $0 }' |
	hack/kubectl.sh delete --ignore-not-found -f -
# Each configuration that there was has its own ConfigMap.
hack/kubectl.sh -n ws-daemon-system get configmaps -o name | sed -n '/^configmap\/ws-daemon-config-/p' |
	xargs --no-run-if-empty hack/kubectl.sh -n ws-daemon-system delete
echo "The CRDs, all objects and the namespace ws-daemon-system stay. Without daemons nothing is backed up. To remove the CRDs: make uninstall"
