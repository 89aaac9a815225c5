#!/bin/bash
# The network tool as the project began with it, line by line, on three hosts in
# namespaces of this machine: networks by name, containers of podman and of containerd
# plugged into them before they start, the attach call. Then five hosts change networks
# for half a minute while they are cut from each other. Needs root.
#
#   scripts/e2e/network-tool.sh                      all of it; of nerdctl too if it is in the path
#   scripts/e2e/network-tool.sh podman               one part: podman, containerd, nerdctl, partition
#   SEED=7 scripts/e2e/network-tool.sh partition     the cuts of that seed; else another each time
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh

need_root
need_go
parts=("$@")
if [ ${#parts[@]} = 0 ]; then
	parts=(podman containerd)
	! have nerdctl || parts+=(nerdctl)
	parts+=(partition)
fi
need_packages podman=podman containerd=containerd runc=runc busybox=busybox-static /usr/lib/cni/portmap=containernetworking-plugins \
	iptables=iptables nft=nftables ip=iproute2 ss=iproute2 curl=curl
scratch
step 'building'
BIN=$work/bin ./build.sh >/dev/null
go build -o "$work/runtimes" ./scripts/e2e/runtimes
for part in "${parts[@]}"; do
	step "$part"
	"$work/runtimes" -bin "$work/bin" -image "$work/image.tar" -tool -seed "${SEED:-$RANDOM}" "$part"
done
good "${parts[*]}: all of it held  (${SECONDS} s)"
