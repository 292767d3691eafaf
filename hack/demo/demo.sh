#!/usr/bin/env bash
# Shows a workspace's whole life: two daemons on a real API server, a real file tree, kill -9 and a dead node.
# Everything is made below one temporary directory, which is removed at the end.
# usage: [STORE=file|s3|gcs] [GIT_URL=https://...] [TMPDIR=DIRECTORY] hack/demo/demo.sh   (as root: hack/as-root.sh hack/demo/demo.sh)
# In the virtual machine, hack/vm sets VOLUME=quota|lvm, and DEMO_KUBECONFIG for the API server outside.
set -eEuo pipefail

cd "$(dirname "$0")/../.."
# shellcheck source=hack/demo/lib.sh
source hack/demo/lib.sh
# shellcheck source=hack/demo/tree.sh
source hack/demo/tree.sh
# shellcheck source=hack/demo/store.sh
source hack/demo/store.sh
# shellcheck source=hack/demo/volumes.sh
source hack/demo/volumes.sh
# shellcheck source=hack/demo/watch.sh
source hack/demo/watch.sh

((EUID == 0)) || { echo "demo: FAILED: it must run as root: hack/as-root.sh $0" >&2; exit 1; }

# Not /tmp, which is often in memory: the demo needs up to two gigabytes. Users of the workspace reach their files below it.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/ws-daemon-demo.XXXXXX")
trap at_end EXIT
trap 'unexpected="line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"' ERR
trap 'exit 130' INT TERM
chmod 0711 "$work"
free=$(df --output=avail -k "$work" | tail -n 1)
((free > 3 << 20)) || fail "$work has only $((free >> 10)) MiB of free space, but 3072 are needed: set TMPDIR to another directory"
# Where backups go: a directory, or a server that speaks S3 or Google Cloud Storage.
kind=${STORE:-file}
store=
storage=
# What limits volumes.
driver=${VOLUME:-directory}
# A tree of ten thousand files and more, and a part of it.
tree='' part=''
# The program that watches the daemons' metrics.
prometheus=
# Where workspace web has its content now.
content=
outside=$work/outside

# ws and snapshot print one field of an object.
ws() { kubectl get workspace "$1" -o "jsonpath={$2}"; }
field_is() { [[ $(ws "$1" "$2") == "$3" ]]; }

# ready_reason NAME REASON waits for what `kubectl get workspaces` prints under STATUS.
ready_reason() {
	show kubectl wait "workspace/$1" --for="jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=$2" --timeout="$((120 * slow))s" ||
		fail "workspace $1 did not become $2: $(ws "$1" '.status.conditions[?(@.type=="Ready")].message')"
}

# triggered NAME TEXT waits for the backup that a trigger asked for.
triggered() {
	show kubectl wait "workspace/$1" --for="jsonpath={.status.backup.trigger}=$2" --timeout="$((120 * slow))s"
}

# create FILE shows the manifest that it reads, and creates the object.
create() {
	cat >"$work/$1"
	say "\$ cat $1"
	cat "$work/$1"
	(cd "$work" && show kubectl create -f "$1")
}

# below DIR COMMAND... shows a command that runs in a directory.
below() {
	cd "$1"
	shift
	show "$@"
}

change() {
	show kubectl patch workspace "$1" --type=merge -p "$2"
}

backups() { bin/ws-daemon archive list --store "$store" --domain default --workspace "$1"; }

# write_config NODE writes the configuration of a node's daemon.
write_config() {
	cat >"$work/$1.json" <<-JSON
		{
		  "content": {
		    "workingArea": "$work/$1",
		    "git": {"allowedSchemes": ["https", "http"]},
		    "egress": {"deny": []},
		    "timeouts": {"retryMax": "10s"}
		  },
		  "storage": $storage,
		  "volumes": {"classes": {"default": $(volume_class "$1")}},
		  "service": {"socket": "$work/$1.service/socket"},
		  "health": {"address": "127.0.0.1:$(free_port)"},
		  "metrics": {"address": "127.0.0.1:$(free_port)"},
		  "log": {"level": "info", "format": "console"}
		}
	JSON
}

start_daemon() {
	start "$1" "$work/$1.log" bin/ws-daemon run --config "$work/$1.json" --node "$1" --kubeconfig "$work/daemon.kubeconfig"
	say "the daemon of $1 is process ${processes[$1]}"
	await 60 "the daemon of $1 is ready" serves "$1"
}

serves() {
	alive "$1" || fail "the daemon of $1 has ended"
	answers_ok "$(port_of "$1" health)" /readyz
}

# socket_of NODE prints the address of the socket of a node's daemon.
socket_of() { echo "unix://$work/$1.service/socket"; }

# port_of NODE GROUP prints the port of a group of the configuration of a node's daemon.
port_of() { sed -n "s/.*\"$2\".*127.0.0.1:\([0-9]*\).*/\1/p" "$work/$1.json"; }

# kill_daemon NODE kills the daemon as a power cut would: no signal handler runs.
kill_daemon() {
	say "\$ kill -9 ${processes[$1]}     # the daemon of $1"
	finish "$1" KILL || true
}

start_cluster() {
	local ready
	KUBECONFIG=${DEMO_KUBECONFIG:-}
	if [[ -z $KUBECONFIG ]]; then
		# Its output is the path of the kubeconfig, once the API server answers.
		exec {ready}< <(exec setpriv --pdeathsig TERM -- bin/dev-cluster up --dir "$work/cluster" 2>"$work/cluster.log")
		processes[cluster]=$!
		read -r -u "$ready" KUBECONFIG || fail "the cluster did not start"
	fi
	export KUBECONFIG
	# The daemons have the rights of the DaemonSet's service account, not those of an administrator.
	kubectl apply -f config/manager/namespace.yaml >/dev/null
	kubectl apply -k config/rbac >/dev/null
	sed 's|^\( *\)user:$|&\n\1  as: system:serviceaccount:ws-daemon-system:ws-daemon|' "$KUBECONFIG" >"$work/daemon.kubeconfig"
	kubectl --kubeconfig "$work/daemon.kubeconfig" auth whoami -o name >/dev/null
}

# serve_repository makes a small repository and serves it over http, unless another was asked for.
serve_repository() {
	local ready
	[[ -z ${GIT_URL:-} ]] || return 0
	(
		export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
		export GIT_AUTHOR_NAME=Demo GIT_AUTHOR_EMAIL=demo@example.com GIT_COMMITTER_NAME=Demo GIT_COMMITTER_EMAIL=demo@example.com
		git init -q -b main "$work/hello"
		cd "$work/hello"
		printf '# hello\n\nA repository to clone.\n' >README.md
		git add . && git commit -q -m 'Say what this is'
		printf 'package main\n\nfunc main() { println("hello") }\n' >main.go
		printf '#!/bin/sh\nexec go run main.go\n' >run && chmod +x run && ln -s README.md README
		git add . && git commit -q -m 'Say hello'
		git clone -q --bare "$work/hello" "$work/git/hello.git"
	)
	exec {ready}< <(exec setpriv --pdeathsig TERM -- bin/demo-gitserver --root "$work/git" 2>>"$work/git.log")
	processes[git]=$!
	read -r -u "$ready" GIT_URL || fail "the git server did not start"
	GIT_URL+=/hello.git
}

#################################################################### the story

build() {
	if [[ -n ${DEMO_KUBECONFIG:-} ]]; then # all is there
		export PATH=$PWD/bin:$PATH
		tree=/usr part=share/zoneinfo prometheus=bin/prometheus
		[[ $kind == file ]] || fail "with VOLUME, STORE can only be file"
		return
	fi
	headline "Building what is missing"
	as_caller go build -buildvcs=false -o bin/dev-cluster ./hack/cluster/cmd
	as_caller go build -buildvcs=false -o bin/demo-gitserver ./hack/demo/gitserver
	as_caller go build -buildvcs=false -o bin/dev-stores ./hack/stores/cmd
	as_caller go build -buildvcs=false -o bin/dev-prometheus ./hack/prometheus/cmd
	prometheus=$(as_caller bin/dev-prometheus build)
	[[ $kind == file ]] || as_caller bin/dev-stores build
	tree=$(as_caller go env GOROOT) part=src/cmd
	[[ -x bin/ws-daemon ]] || as_caller make --no-print-directory build
	KUBEBUILDER_ASSETS=$(as_caller bin/dev-cluster tools)
	export KUBEBUILDER_ASSETS PATH=$KUBEBUILDER_ASSETS:$PATH
	SECONDS=0
}

set_up() {
	local node
	headline "A cluster with two nodes, which share a store"
	prepare_volumes
	start_cluster
	kubectl version | sed -n 's/^Server/Kubernetes/p'
	serve_store
	show bin/ws-daemon archive init --store "$store"
	for node in node-a node-b; do
		mkdir -m 0711 "$work/$node"
		write_config "$node"
		kubectl create -f - <<<"{apiVersion: v1, kind: Node, metadata: {name: $node}}" >/dev/null
		start_daemon "$node"
	done
	start_watching
	serve_repository
	await 30 "both nodes report themselves" kubectl wait workspacenodes/node-a workspacenodes/node-b \
		--for=condition=Ready --timeout=5s >/dev/null 2>&1
	show kubectl get workspacenodes
}

create_workspace() {
	headline "A workspace from git, on node-a"
	create web.yaml <<-YAML
		apiVersion: workspace.wsdaemon.dev/v1
		kind: Workspace
		metadata:
		  name: web
		spec:
		  nodeName: node-a
		  volume: {size: 2Gi}
		  initializer:
		    git: {url: "$GIT_URL", checkoutLocation: repository}
	YAML
	ready_reason web Running
	show kubectl get workspaces
	show kubectl get workspaces -o wide
	content=$(ws web .status.volume.path)
	say "and its user sees:"
	(below "$content/repository" setpriv --reuid=33333 --regid=33333 --clear-groups \
		env HOME=/nonexistent git --no-pager log --oneline -n 3)
}

fill_workspace() {
	local entries
	headline "People work in it: ten thousand files, and everything else that is hard to keep"
	fill_tree "$content" "$tree"
	[[ -z ${DEMO_KUBECONFIG:-} ]] || cp -a api controllers docs hack internal test "$content/tree" # the machine has less
	entries=$(find "$content" -printf x | wc -c)
	say "$entries entries, $(du -sh "$content" | cut -f 1)"
	((entries >= 10000)) || fail "$tree has only $entries entries"
	(below "$content" ls -lA odd/links odd/modes odd/others)
	hit_limit "$content"
}

back_up() {
	headline "A backup: the client asks node-a's daemon for one, and follows it"
	on_terminal bin/ws-daemon client --address "$(socket_of node-a)" backup web
	say "The next one knows how much there is, and reads only what has changed:"
	cp -a "$content/tree/$part" "$content/tree/copy-before-lunch"
	on_terminal bin/ws-daemon client --address "$(socket_of node-a)" backup web
	show bin/ws-daemon client --address "$(socket_of node-a)" list
	show bin/ws-daemon client --address "$(socket_of node-a)" backups web
	show bin/ws-daemon client --address "$(socket_of node-a)" usage web
	show kubectl get workspaces
	show bin/ws-daemon archive list --store "$store" --domain default --workspace web
}

take_snapshot() {
	headline "A snapshot"
	create lunch.yaml <<-YAML
		apiVersion: workspace.wsdaemon.dev/v1
		kind: Snapshot
		metadata:
		  name: lunch
		spec:
		  workspaceName: web
		  nodeName: node-a
		  deletionPolicy: Delete
	YAML
	show kubectl wait snapshot/lunch --for=condition=Ready --timeout="$((120 * slow))s"
	show kubectl get snapshots
	keep_tree "$content" "$work/lunch"
}

kill_during_backup() {
	local before inode
	headline "kill -9 of node-a's daemon while it makes the next backup"
	cp -a "$content/tree/$part" "$content/tree/copy-after-lunch"
	echo "written after lunch" >"$content/odd/after lunch"
	head -c 256M /dev/urandom >"$content/recording" # several packs, so that there is a middle
	before=$(backups web)
	keep_tree "$content" "$work/reference"
	inode=$(stat -c %i "$content")
	packs_before=$(packs)
	change web '{"spec":{"backup":{"trigger":"after lunch"}}}'
	await 60 "the first part of the backup is in the store" more_packs
	kill_daemon node-a
	say "the backup had stored $(($(packs) - packs_before)) of its packs"
	[[ $(backups web) == "$before" ]] || fail "the backup was complete before the daemon was killed"
	show kubectl get workspaces
	say "the content is where it was, and no half a backup can be seen:"
	compare_tree "$content" "$work/reference"
	start_daemon node-a
	triggered web 'after lunch'
	[[ $(stat -c %i "$content") == "$inode" ]] || fail "the content is another directory after the restart"
	compare_tree "$content" "$work/reference"
	show kubectl get workspaces
	show bin/ws-daemon archive list --store "$store" --domain default --workspace web
}

more_packs() { (($(packs) > packs_before)); }

stop_workspace() {
	headline "Stop: a final backup, read back, then the content goes from the node"
	echo "the last change" >"$content/odd/last change"
	keep_tree "$content" "$work/reference"
	change web '{"spec":{"state":"Stopped"}}'
	ready_reason web Stopped
	show kubectl get workspaces -o wide
	await 30 "node-a has removed the content" disk_is_empty node-a
	say "node-a holds nothing any more:"
	(below "$work" find "$(volumes_of node-a)" node-a/journal)
}

move_workspace() {
	headline "Start on node-b: everything is there"
	change web '{"spec":{"nodeName":"node-b","state":"Running"}}'
	ready_reason web Running
	show kubectl get workspaces
	content=$(ws web .status.volume.path)
	[[ $content == "$work/node-b/"* ]] || fail "the content is not on node-b: $content"
	compare_tree "$content" "$work/reference"
	(below "$content/odd" stat -c '%n: %A, %u:%g, %h names, %y' \
		links/first modes/setuid owners/unknown times/nanosecond times/before-1970)
	say "a sparse file of 64 MiB takes $(du -k "$content/odd/others/sparse" | cut -f 1) KiB"
	(($(du -k "$content/odd/others/sparse" | cut -f 1) < 1024)) || fail "the sparse file came back with its holes filled"
	(below "$content/odd" getfattr -d -m - -- attributes/file attributes/acl attributes/capable)
}

lose_node() {
	headline "node-b dies with unsaved work, and the workspace fails over to node-a"
	echo "nobody has a backup of this" >"$content/unsaved"
	kill_daemon node-b
	show kubectl get workspaces
	say "node-b may only be given up by somebody who vouches that it is dead:"
	refused web '{"spec":{"nodeName":"node-a"}}'
	change web '{"spec":{"nodeName":"node-a","fencedNode":"node-b"}}'
	await 120 "node-a has taken the workspace over" field_is web .status.nodeName node-a
	ready_reason web Running
	show kubectl get workspaces
	content=$(ws web .status.volume.path)
	[[ $content == "$work/node-a/"* ]] || fail "the content is not on node-a: $content"
	compare_tree "$content" "$work/reference"
}

# refused NAME PATCH shows a patch that the API server must refuse.
refused() {
	! change "$1" "$2" 2>&1 || fail "the API server accepted what it must refuse"
}

restore_snapshot() {
	headline "A new workspace from the snapshot"
	create again.yaml <<-YAML
		apiVersion: workspace.wsdaemon.dev/v1
		kind: Workspace
		metadata:
		  name: again
		spec:
		  nodeName: node-a
		  volume: {size: 2Gi}
		  initializer: {snapshot: {name: lunch}}
		  deletionPolicy: Delete
	YAML
	ready_reason again Running
	show kubectl get workspaces
	compare_tree "$(ws again .status.volume.path)" "$work/lunch"
	[[ $driver == lvm ]] || return 0
	say "and one more, which begins with a copy of what the first began with:"
	sed 's/name: again/name: more/' "$work/again.yaml" | create more.yaml
	ready_reason more Running
	compare_tree "$(ws more .status.volume.path)" "$work/lunch"
	await 30 "an event says how it began" was_cloned more
	show kubectl delete workspace more --timeout="$((120 * slow))s"
}

# was_cloned NAME says whether a workspace began with a template.
was_cloned() {
	kubectl get events --field-selector "reason=Restored,involvedObject.name=$1" -o jsonpath='{.items[*].message}' | grep -F 'cloned from a template'
}

return_node() {
	local stray
	headline "node-b comes back: it keeps its unsaved work in the store, and cleans up"
	start_daemon node-b
	await 120 "node-b has cleaned up" disk_is_empty node-b
	await 30 "an event names the stray snapshot" has_stray_snapshot
	stray=$(stray_snapshot)
	show kubectl get events --field-selector reason=StraySnapshot
	say '$ ws-daemon archive export --snapshot '"$stray"' ... | tar -x unsaved; cat unsaved'
	bin/ws-daemon archive export --store "$store" --domain default --workspace web --snapshot "$stray" |
		tar -x --warning=no-unknown-keyword -C "$work" -f - unsaved
	cat "$work/unsaved"
	[[ $(<"$work/unsaved") == "nobody has a backup of this" ]] || fail "the stray snapshot holds another text"
	compare_tree "$content" "$work/reference"
	show kubectl get workspaces
}

stray_snapshot() {
	kubectl get events --field-selector reason=StraySnapshot -o jsonpath='{.items[*].message}' |
		grep -o 'kept as snapshot [^ ]*' | sed 's/.* //' | tail -n 1 | grep .
}

has_stray_snapshot() { stray_snapshot >/dev/null; }

delete_all() {
	headline "Deletion"
	show kubectl delete snapshot lunch --timeout="$((120 * slow))s"
	show kubectl delete workspace web again --timeout="$((120 * slow))s"
	show kubectl get workspaces,snapshots
	say "the backups of web are kept, as its deletionPolicy says:"
	show bin/ws-daemon archive list --store "$store" --domain default --workspace web
	await 60 "node-a has removed everything" disk_is_empty node-a
}

look_back() {
	headline "What happened"
	show kubectl get events --sort-by=.metadata.creationTimestamp
	show kubectl wait workspacenodes --all --for=condition=SafeToRemove --timeout="$((60 * slow))s"
	show kubectl get workspacenodes
}

leave_nothing() {
	local left node
	headline "Nothing is left"
	for node in node-a node-b; do
		finish "$node" TERM || fail "the daemon of $node ended with status $?"
		disk_is_empty "$node" || fail "something is left on $node: $(find "$(volumes_of "$node")" "$work/$node/journal") $(logical_volumes "$node")"
		(below "$work" find "$node" -mindepth 1 -not -path '*/reserve/*')
	done
	# What the killed daemon was writing to the store is swept a day later: until then another node may be about to name it.
	left=$(find "$work/node-a" "$work/node-b" -name '.tmp-*' -o -path '*/.trash/*')
	[[ -z $left ]] || fail "temporary files are left: $left"
	left=$(grep -F "$work" /proc/self/mountinfo || true)
	[[ -z $left ]] || fail "mounts are left: $left"
	drop_volumes
}

build
set_up
create_workspace
fill_workspace
back_up
take_snapshot
kill_during_backup
stop_workspace
move_workspace
lose_node
restore_snapshot
return_node
delete_all
look_back
look_at_metrics
leave_nothing
printf '\nIt took %d s.\n' "$SECONDS"
