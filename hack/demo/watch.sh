# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # demo.sh and lib.sh have the variables that are used here and not set, and use those that are set
# A Prometheus that watches the daemons of the demo from beginning to end. Sourced by demo.sh.

# What the program says that runs it.
watched=

# start_watching has both daemons' metrics read, and the alerts of config/prometheus evaluated, every second.
start_watching() {
	local url used expected=()
	used=$(df --output=pcent "$work" | tail -n 1)
	# They are right, then: 15 % must be left besides the daemons' reserve, and what the demo and others write meanwhile.
	((${used//[^0-9]/} < 70)) || expected=(--expect "WSDaemonDiskFull,WSDaemonAreaFull")
	mkdir "$work/prometheus"
	exec {watched}< <(exec setpriv --pdeathsig TERM -- bin/dev-prometheus watch --program "$prometheus" --dir "$work/prometheus" \
		--interval "${slow}s" "${expected[@]}" "node-a=127.0.0.1:$(port_of node-a metrics)" "node-b=127.0.0.1:$(port_of node-b metrics)" \
		2>"$work/watch.log")
	processes[watch]=$!
	read -r -u "$watched" url || fail "Prometheus did not start: $(<"$work/watch.log")"
	say "a Prometheus watches both daemons at $url"
}

# look_at_metrics ends the watch: every alert, and every query of the dashboard, evaluated against what both daemons said.
look_at_metrics() {
	local status=0
	headline "What a Prometheus makes of the metrics of both daemons"
	finish watch TERM || status=$?
	cat <&"$watched"
	((status == 0)) || fail "the metrics are not as they should be: $(<"$work/watch.log")"
	say "no alert fires, and whatever a query asks for is there, or documented to be absent"
}
