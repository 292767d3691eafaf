# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # demo.sh has the variables that are used here and not set, or set and not used
# The store of the demo: a directory, or a server on the loopback that speaks S3 or Google Cloud Storage. Sourced by demo.sh.

# serve_store makes an empty place for a store, and sets its URL and its part of a daemon's configuration.
serve_store() {
	local endpoint ready
	mkdir "$work/store"
	if [[ $kind == file ]]; then
		store=file://$work/store
		storage='{"kind": "filesystem", "filesystem": {"path": "'$work'/store"}}'
		return
	fi
	[[ $kind == s3 || $kind == gcs ]] || fail "STORE is file, s3 or gcs, not $kind"
	exec {ready}< <(exec setpriv --pdeathsig TERM -- bin/dev-stores "$kind" --dir "$work/store" 2>"$work/store.log")
	processes[store]=$!
	read -r -u "$ready" endpoint || fail "the store did not start"
	say "a server for the store answers at $endpoint"
	if [[ $kind == gcs ]]; then
		store="gs://ws-daemon/demo?endpoint=$endpoint"
		storage='{"kind": "gcs", "gcs": {"bucket": "ws-daemon", "prefix": "demo", "endpoint": "'$endpoint'"}}'
		return
	fi
	# As a Secret is mounted.
	mkdir "$work/credentials"
	printf ws-daemon-admin >"$work/credentials/access-key-id"
	printf ws-daemon-secret >"$work/credentials/secret-access-key"
	store="s3://ws-daemon/demo?endpoint=$endpoint&credentials-dir=$work/credentials"
	storage='{"kind": "s3", "s3": {"bucket": "ws-daemon", "prefix": "demo", "endpoint": "'$endpoint'",
		"credentials": {"directory": "'$work'/credentials"}}}'
}

# packs prints how many packs the store has.
packs() {
	if [[ $kind == gcs ]]; then
		local address=${store#*http://}
		http_get "${address%:*}" "${address#*:}" '/storage/v1/b/ws-daemon/o?prefix=demo/d/default/p/&maxResults=1000&fields=items(name)' |
			{ grep -o '"name":' || true; } | wc -l
		return
	fi
	find "$work/store" -path '*/d/default/p/*' -type f | wc -l
}

# http_get HOST PORT TARGET prints a reply.
http_get() (
	exec 3<>"/dev/tcp/$1/$2"
	printf 'GET %s HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$3" "$1" "$2" >&3
	cat <&3
)
