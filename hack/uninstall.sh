#!/usr/bin/env bash
# Deletes the CRDs.
#
# Deleting a CRD deletes its objects. A workspace is let go only by the daemon of its node, so without a daemon the
# deletion would hang, and with deletionPolicy Delete it would cost the backups. Hence objects are the caller's to delete.
set -euo pipefail

cd "$(dirname "$0")/.."

for resource in workspaces snapshots; do
	name=$resource.workspace.wsdaemon.dev
	[[ -n $(hack/kubectl.sh get crd "$name" --ignore-not-found -o name) ]] || continue
	objects=$(hack/kubectl.sh get "$name" --all-namespaces -o name)
	if [[ -n $objects ]]; then
		echo "error: there are $(wc -l <<<"$objects") $resource: delete them first, and wait until they are gone" >&2
		exit 1
	fi
done
hack/kubectl.sh delete --ignore-not-found -k config/crd
