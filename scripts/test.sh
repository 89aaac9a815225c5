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
failures=()

# check NAME COMMAND…: one thing that is right or wrong, counted like a test.
check() {
	local name=$1
	shift
	step "$name"
	if "$@"; then
		echo 1 0 0 >>"$work/counts"
	else
		echo 0 1 0 >>"$work/counts"
		failures+=("$name")
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
	go test -json -timeout 20m "$@" 2>&1 | "$work/tally" -counts "$work/counts" "${strict[@]}" || failures+=("$name")
}

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
	[ ! -e "$work/fuzz-failed" ] || failures+=(fuzz)
}

check 'build' ./build.sh
go build -o "$work/tally" ./scripts/tally
check 'gofmt' formatted
check 'go vet' go vet -tags coredns ./...

racy_packages >"$work/racy"
go list ./... | sort | comm -23 - "$work/racy" >"$work/calm"
mapfile -t calm <"$work/calm"
mapfile -t racy <"$work/racy"
go_test "tests of ${#calm[@]} packages" "${calm[@]}"
[ ${#racy[@]} = 0 ] || go_test "tests of ${#racy[@]} packages with goroutines, races looked for" -race "${racy[@]}"

if [ "$FUZZ" != 0 ]; then
	step "fuzzing each decoder for $FUZZ, those of DNS for $FUZZ_NAMES"
	fuzz
fi

if [ "$SIM" != 0 ]; then
	check "new schedules, $SIM s a scenario" env SECONDS_EACH="$SIM" scripts/sim.sh
fi

if [ "$E2E" != 0 ] && is_root; then
	for script in scripts/demo.sh scripts/e2e/podman.sh scripts/e2e/containerd.sh scripts/e2e/network-tool.sh; do
		limit=300
		[ "$script" != scripts/e2e/network-tool.sh ] || limit=600 # its three parts are as long as the others together
		[ ! -x "$script" ] || check "$script" timeout --kill-after=10 "$limit" "$script"
	done
fi

read -r passed failed skipped < <(awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$work/counts")
echo
if [ ${#failures[@]} -gt 0 ]; then
	printf 'failed: %s%s%s\n' "$red" "$(printf '%s; ' "${failures[@]}")" "$plain"
fi
echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ ${#failures[@]} = 0 ]
