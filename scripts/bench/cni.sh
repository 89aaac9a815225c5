#!/bin/bash
# Times ADD and DEL of our chain beside the reference bridge and the floor, in
# private namespaces, taking turns. Takes about ten minutes; needs root and a
# machine that does nothing else. Flags go to the driver:
#
#   scripts/bench/cni.sh
#   scripts/bench/cni.sh -rounds 1 -n 20 -storm 60 -existing 0    a quick look
#   REFERENCE=1 scripts/bench/cni.sh                              without ours
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh

need_root
need_go
need_packages iptables=iptables nft=nftables ip=iproute2 ss=iproute2
scratch
step 'building'
flags=(-plugins "$work/reference")
if [ -z "${REFERENCE:-}" ]; then
	BIN=$work/bin ./build.sh >/dev/null
	flags+=(-bin "$work/bin")
fi
build_reference "$work/reference"
CGO_ENABLED=0 go build -ldflags '-s -w' -o "$work/reference/" ./scripts/bench/cnibench/nothing
go build -o "$work/cnibench" ./scripts/bench/cnibench
step "measuring on $(nproc) cores, kernel $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
"$work/cnibench" "${flags[@]}" "$@"
