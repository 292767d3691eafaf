# shellcheck shell=bash
# What the demo needs to tell its story: headlines, waiting with a deadline, processes, and an end that leaves nothing.
# Sourced by demo.sh.

# The directory of everything that the demo writes; demo.sh makes it.
work=

# Process ids by name. Nothing else is ever killed.
declare -A processes=()

headline() {
	printf '\n=== [%3d s] %s\n' "$SECONDS" "$*"
}

say() {
	printf '%s\n' "$*"
}

# show runs a command after printing it as a person would type it.
show() {
	local word line='$'
	for word in "$@"; do
		if [[ $word =~ ^[a-zA-Z0-9_./:=@,%+-]+$ ]]; then
			line+=" $word"
		else
			line+=" '${word//\'/\'\\\'\'}'"
		fi
	done
	printf '%s\n' "$line"
	"$@"
}

# on_terminal shows a command that finds a terminal: each drawing of its bar has a line here.
on_terminal() {
	say "\$ $*"
	script --quiet --return --command "$(printf '%q ' "$@")" /dev/null </dev/null |
		sed -u -e 's/\x1b\[K//g' -e 's/^\r*//' -e 's/\r*$//' -e 's/\r\r*/\n/g'
}

# fail ends the demo, from a subshell as well: the reason is in a file, and the exit status does the rest.
fail() {
	[[ -s $work/failure ]] || printf '%s\n' "$*" >"$work/failure"
	exit 1
}

# slow is how many times as long as usual everything may take.
slow=${DEMO_SLOWNESS:-1}

# await SECONDS WHAT COMMAND... runs the command until it succeeds. The pause only keeps the processor free.
await() {
	local deadline=$((SECONDS + $1 * slow)) what=$2
	shift 2
	until "$@"; do
		((SECONDS < deadline)) || fail "waited too long until $what"
		sleep 0.05
	done
}

# start NAME LOG COMMAND... starts a process that dies with the demo, however the demo ends.
start() {
	local name=$1 log=$2
	shift 2
	setpriv --pdeathsig TERM -- "$@" >>"$log" 2>&1 &
	processes[$name]=$!
}

alive() {
	[[ -n ${processes[$1]:-} ]] && kill -0 "${processes[$1]}" 2>/dev/null
}

# finish NAME SIGNAL sends a signal and waits for the end, a minute at most, or as much longer as all is slower. It returns the exit status of the process.
finish() {
	local pid=${processes[$1]:-} status=0 deadline=$((SECONDS + 60 * slow))
	[[ -n $pid ]] || return 0
	unset "processes[$1]"
	{
		kill -s "$2" "$pid" || true
		while kill -0 "$pid" && ((SECONDS < deadline)); do
			sleep 0.05
		done
		kill -s KILL "$pid" || true
		wait "$pid" || status=$?
	} 2>/dev/null # what bash says of a killed child is no news
	return "$status"
}

# as_caller runs a command as the user who called sudo: what root writes into that user's build cache could never be removed.
as_caller() {
	if [[ -z ${SUDO_UID:-} || $SUDO_UID == 0 ]]; then
		"$@"
		return
	fi
	setpriv --reuid="$SUDO_UID" --regid="$(id -g "$SUDO_UID")" --init-groups -- \
		env HOME="$(getent passwd "$SUDO_UID" | cut -d : -f 6)" "$@"
}

# free_port prints a port of 127.0.0.1 on which nobody listens, below those that the kernel gives to outgoing connections.
free_port() {
	local port try
	for ((try = 0; try < 100; try++)); do
		port=$((20000 + RANDOM % 12000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return
		fi
	done
	fail "no free port found on 127.0.0.1"
}

# answers_ok PORT PATH says whether an http server answers with 200.
answers_ok() (
	exec 2>/dev/null
	exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
	printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
	read -r -t 5 -u 3 _ status _
	[[ $status == 200 ]]
)

# at_end is the trap of every exit: it stops the processes, tells how the demo went, and removes what it wrote.
at_end() {
	local status=$?
	trap - ERR
	trap '' INT TERM
	set +e
	((status == 0)) || tell_failure "$status"
	finish watch TERM
	finish node-a TERM
	finish node-b TERM
	finish git TERM
	finish store TERM
	finish cluster TERM
	rm -rf --one-file-system "$work"
	if ((status == 0)); then
		none_left || exit 1
		echo "demo: passed"
	fi
	exit "$status"
}

# none_left says whether the demo took everything with it.
none_left() {
	local file
	if [[ -e $work ]]; then
		echo "demo: FAILED: $work could not be removed"
		return 1
	fi
	for file in /proc/[0-9]*/cmdline; do
		if tr '\0' ' ' <"$file" | grep -qF "$work"; then
			file=${file%/cmdline}
			echo "demo: FAILED: process ${file##*/} is left: $(tr '\0' ' ' <"$file/cmdline")"
			return 1
		fi
	done 2>/dev/null # processes come and go
}

tell_failure() {
	local log
	if (($1 == 130)); then
		printf '\ndemo: FAILED: interrupted\n'
		return
	fi
	for log in "$work"/*.log "$work"/cluster/kube-apiserver.log; do
		[[ -s $log ]] || continue
		printf '\n--- end of %s\n' "${log##*/}"
		tail -n 25 "$log"
	done
	if [[ -n ${KUBECONFIG:-} ]] && alive cluster; then
		printf '\n--- objects\n'
		kubectl --request-timeout=10s get workspaces,snapshots -o yaml
	fi
	if [[ ! -s $work/failure ]]; then
		echo "$unexpected (exit status $1)" >"$work/failure"
	fi
	printf '\ndemo: FAILED: %s\n' "$(<"$work/failure")"
}

# unexpected is the command that failed without a reason of its own; the trap of ERR notes it.
unexpected="a command failed"
