#!/usr/bin/env bash
# Runs bin/ws-daemon against the current kubeconfig or, where there is none, against a cluster of its own.
# Everything it stores is below .dev: the working area, an object store in a directory, the cluster.
# usage: [NODE_NAME=NAME] [KUBECONFIG=FILE] hack/run.sh
set -euo pipefail

cd "$(dirname "$0")/.."
node=${NODE_NAME:-$(hostname)}
tools=$(go run ./hack/cluster/cmd tools)
export PATH=$tools:$PATH

if [[ -n ${KUBECONFIG:-} || -f $HOME/.kube/config ]]; then
	export KUBECONFIG=${KUBECONFIG:-$HOME/.kube/config}
	# One working area for each cluster: the daemon refuses the area of another one.
	context=$(kubectl config current-context)
	dev=$PWD/.dev/${context//[^a-zA-Z0-9._-]/-}
	echo "cluster: current context $context (the CRDs must be there: make install)"
else
	dev=$PWD/.dev/own
	mkdir -p "$dev"
	go build -o bin/dev-cluster ./hack/cluster/cmd
	# An own session: an interrupt from the terminal stops the daemon first, then this script stops the cluster.
	exec {ready}< <(exec setsid bin/dev-cluster up --dir "$dev/cluster")
	cluster=$!
	trap 'kill "$cluster" 2>/dev/null || true; wait "$cluster" 2>/dev/null || true' EXIT
	read -r -u "$ready" KUBECONFIG || exit 1
	export KUBECONFIG
	echo "cluster: its own; in another terminal: export KUBECONFIG=$KUBECONFIG PATH=$tools:\$PATH"
fi

mkdir -p "$dev/area" "$dev/store"
sed "s|@DIR@|$dev|g" hack/dev/config.json >"$dev/config.json"
echo "node: $node; data: $dev"
hack/as-root.sh bin/ws-daemon archive init --store "file://$dev/store"
hack/as-root.sh bin/ws-daemon run --config "$dev/config.json" --node "$node" &
daemon=$!
# The first signal asks the daemon to stop at a safe point; the cluster stays until it has.
trap 'kill "$daemon" 2>/dev/null || true' INT TERM
status=0
wait "$daemon" || status=$?
while kill -0 "$daemon" 2>/dev/null; do
	status=0
	wait "$daemon" || status=$?
done
exit "$status"
