#!/bin/bash
# Names. First containers of podman, ctr, nerdctl, containerd's CRI and `ip netns`, on
# two hosts in namespaces of this machine, resolve each other, and CoreDNS finds such ones
# by the stub of docs/names.md. Then five hosts' routers are killed, also without their
# claim files, and the network between them is cut, one way and both, while containers
# come, go, move and are renamed; each host's server is asked all the time, and every
# answer is checked. Needs root.
#
#   scripts/e2e/dns.sh                          builds nerdctl, crictl and CoreDNS, which takes minutes
#   TOOLS=DIR scripts/e2e/dns.sh                those in that directory, or built into it
#   scripts/e2e/dns.sh runtimes                 one part: runtimes, coredns, history
#   DURATION=30s SEED=7 scripts/e2e/dns.sh history
#
# The history is of 2 minutes of faults and a new seed; its last lines say what was done
# and how long names took. 1 is the exit code when something was wrong, and then the
# seed's faults are in the output. SLACK=5 allows five times what is promised, for a
# machine that is busy with something else.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh
. scripts/lib/coredns.sh

need_root
need_go
parts=("$@")
[ ${#parts[@]} != 0 ] || parts=(runtimes coredns history)
need_packages /usr/lib/cni/portmap=containernetworking-plugins iptables=iptables nft=nftables ip=iproute2 ss=iproute2
scratch

# tool NAME PACKAGE: a program of a module of its own, below scripts/e2e.
tool() {
	[ ! -x "$TOOLS/$1" ] || return 0
	step "building $1"
	(cd "scripts/e2e/$1" && CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags '-s -w' -o "$TOOLS/$1" "$2")
}

runtimes() {
	need_packages podman=podman containerd=containerd runc=runc busybox=busybox-static
	TOOLS=$(realpath -m "${TOOLS:-$work/tools}")
	mkdir -p "$TOOLS"
	tool nerdctl github.com/containerd/nerdctl/v2/cmd/nerdctl
	tool crictl sigs.k8s.io/cri-tools/cmd/crictl
	BIN=$work/bin ./build.sh >/dev/null
	go build -o "$work/bin/cnitool" github.com/containernetworking/cni/cnitool
	go build -o "$work/runtimes" ./scripts/e2e/runtimes
	step 'containers of all runtimes resolve each other'
	PATH=$PATH:$TOOLS "$work/runtimes" -bin "$work/bin" -image "$work/image.tar" dns
	good 'each resolved each other one'
}

# passed looks at what go test -v said: where the lab is not to be had a test skips, which
# is no pass here.
passed() {
	grep -q '^--- PASS' "$work/out" && ! grep -q '^--- SKIP' "$work/out" || die 'not run'
}

coredns() {
	step 'building CoreDNS'
	need_coredns
	step 'CoreDNS finds containers by the stub of docs/names.md'
	COREDNS=$COREDNS go test -count=1 -v -tags coredns -run '^TestCoreDNS' ./scripts/e2e |
		tee "$work/out" | grep --line-buffered -v '^=== '
	passed
}

history() {
	export WEAVE_E2E_DURATION=${DURATION:-2m} WEAVE_E2E_SEED=${SEED:-} WEAVE_E2E_SLACK=${SLACK:-1}
	step "names on five hosts under faults, for $WEAVE_E2E_DURATION"
	go test -count=1 -timeout 1h -v -run '^TestNoServerNamesWhatIsNotThereWhateverHappensToTheHosts$' ./scripts/e2e |
		tee "$work/out" | grep --line-buffered -v '^=== '
	passed
	good 'no server named what was not there'
}

for part in "${parts[@]}"; do
	case $part in
	runtimes | coredns | history) "$part" ;;
	*) die "which part? runtimes, coredns, history" ;;
	esac
done
