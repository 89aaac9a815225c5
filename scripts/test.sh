#!/bin/bash
# Runs every test there is, on a fresh Debian 12 machine, as root:
#
#   scripts/test.sh
#
# It installs what is missing, builds, checks formatting, runs all Go tests
# (with the race detector where there are goroutines), fuzzes each decoder for a
# few seconds (those of DNS for thirty), plays new schedules of the simulator for five
# minutes, and then runs the demo, podman, containerd and the network tool's walkthrough.
# As root a skipped test counts as a failure: this machine has all that a test may ask for.
# What mostly waits runs beside other things, in namespaces of its own: scripts/e2e beside the
# tests of the other packages, the network tool's walkthrough beside the demo and the runtimes.
# It is told when it has ended. Fuzzing and the simulator have the machine to themselves.
#
#   FUZZ=30s scripts/test.sh     fuzz longer, but DNS, whose FUZZ_NAMES is 30s as it is; 0 not at all
#   SIM=60 scripts/test.sh       so many seconds for each scenario; 0 not at all
#   E2E=0 scripts/test.sh        without the demo and the real runtimes
#
# What takes longer is run by hand: scripts/sim.sh, scripts/fuzz.sh, scripts/e2e/addresses.sh, scripts/e2e/dns.sh,
# scripts/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/shell.sh
. scripts/lib/fuzz.sh
export LC_ALL=C # sort and comm agree

FUZZ=${FUZZ:-3s}
FUZZ_NAMES=${FUZZ_NAMES:-30s}
[ "$FUZZ" != 0 ] || FUZZ_NAMES=0
SIM=${SIM:-21}
E2E=${E2E:-1}

need_go
need_packages \
	iptables=iptables nft=nftables ipset=ipset tcpdump=tcpdump conntrack=conntrack ip=iproute2 ping=iputils-ping \
	dig=bind9-dnsutils dnsperf=dnsperf busybox=busybox-static /usr/lib/cni/portmap=containernetworking-plugins \
	runc=runc containerd=containerd podman=podman strace=strace jq=jq curl=curl gcc=gcc /usr/include/stdlib.h=libc6-dev
scratch

# failed NAME: one more thing that is wrong.
failed() { echo "$1" >>"$work/failures"; }

# check NAME COMMAND…: one thing that is right or wrong, counted like a test.
check() {
	local name=$1
	shift
	step "$name"
	if "$@"; then
		echo 1 0 0 >>"$work/counts"
	else
		echo 0 1 0 >>"$work/counts"
		failed "$name"
	fi
}

formatted() {
	local bad
	bad=$(gofmt -l .)
	[ -z "$bad" ] || { printf 'not formatted:\n%s\n' "$bad" && return 1; }
}

# go_test NAME FLAGS… -- PACKAGES…
go_test() {
	local name=$1 strict=()
	shift
	step "$name"
	is_root && strict=(-no-skips)
	go test -json -timeout 20m "$@" 2>&1 | "$work/tally" -counts "$work/counts" "${strict[@]}" || failed "$name"
}

# longest_first PATTERN: lines that match before all others, so that no long test is left to run alone.
longest_first() { awk -v p="$1" '$0 ~ p { print; next } { rest = rest $0 "\n" } END { printf "%s", rest }'; }

declare -A asides
# aside NAME COMMAND…: starts one beside what follows. What it prints is kept until joined NAME.
aside() {
	local name=$1
	shift
	set -m # a process group of its own, to be ended as one
	"$@" </dev/null >"$work/$name.out" 2>&1 &
	set +m
	asides[$name]=$!
	on_exit end_aside "$name"
}
joined() {
	wait "${asides[$1]}" || failed "$1 was cut off"
	unset "asides[$1]"
	cat "$work/$1.out"
}
end_aside() { [ -z "${asides[$1]:-}" ] || kill -- "-${asides[$1]}"; }

# Packages that start goroutines, or guard something against them, are tested
# with the race detector; those linked with mesh are not: it has races of its own.
racy_packages() {
	go list -f '{{$p := .}}{{range .GoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}' ./... |
		while read -r pkg file; do
			! grep -Eq '^[[:space:]]*go [a-zA-Z]|\.Go\(|"sync(/atomic)?"' "$file" || echo "$pkg"
		done | sort -u >"$work/concurrent"
	go list -test -f '{{$p := .ImportPath}}{{range .Deps}}{{if eq . "github.com/weaveworks/mesh"}}{{$p}}{{"\n"}}{{end}}{{end}}' ./... |
		sed 's/ \[.*//; s/\.test$//; s/_test$//' | sort -u >"$work/mesh"
	comm -23 "$work/concurrent" "$work/mesh"
}

fuzz() {
	local file target pkg long
	while IFS=: read -r file target; do
		pkg=$(dirname "$file") long=$FUZZ
		[ "$pkg" != ./pkg/names ] || long=$FUZZ_NAMES
		# A crasher is written to the package's testdata and is from then on a test.
		if fuzz_one "$target" "$pkg" "$long" </dev/null; then
			echo "    ok    $pkg $target: $(fuzz_inputs) inputs"
			echo 1 0 0 >>"$work/counts"
		else
			cat "$work/fuzz"
			echo 0 1 0 >>"$work/counts"
			echo "$pkg $target" >>"$work/fuzz-failed"
		fi
	done < <(fuzz_targets .)
	[ ! -e "$work/fuzz-failed" ] || failed fuzz
}

# script PATH LIMIT: one of those that show it all at work, which may take so many seconds.
script() { check "$1" timeout --kill-after=10 "$2" "$1"; }

demo_and_runtimes() {
	script scripts/demo.sh 300
	script scripts/e2e/podman.sh 300
	script scripts/e2e/containerd.sh 300
}

check 'build' ./build.sh
go build -o "$work/tally" ./scripts/tally
check 'gofmt' formatted
check 'go vet' go vet -tags coredns ./...

racy_packages >"$work/racy"
go list ./... | sort | comm -23 - "$work/racy" | grep -v '/scripts/e2e$' >"$work/calm"
mapfile -t calm < <(longest_first '/pkg/router$' <"$work/calm")
mapfile -t racy < <(longest_first '/pkg/replica$' <"$work/racy")
aside e2e go_test 'tests of the programs on hosts in namespaces' ./scripts/e2e
go_test "tests of ${#calm[@]} packages" "${calm[@]}"
[ ${#racy[@]} = 0 ] || go_test "tests of ${#racy[@]} packages with goroutines, races looked for" -race "${racy[@]}"
joined e2e

if [ "$FUZZ" != 0 ]; then
	step "fuzzing each decoder for $FUZZ, those of DNS for $FUZZ_NAMES"
	fuzz
fi

if [ "$SIM" != 0 ]; then
	check "new schedules, $SIM s a scenario" env SECONDS_EACH="$SIM" scripts/sim.sh
fi

if [ "$E2E" != 0 ] && is_root; then
	aside network-tool script scripts/e2e/network-tool.sh 600 # its three parts are as long as the others together
	demo_and_runtimes
	joined network-tool
fi

read -r passed failed skipped < <(awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$work/counts")
echo
[ ! -e "$work/failures" ] || printf 'failed: %s%s%s\n' "$red" "$(awk '{ printf "%s; ", $0 }' "$work/failures")" "$plain"
echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ ! -e "$work/failures" ]
