#!/bin/bash
# Measures networks on five hosts in namespaces: from `weave net create` on one to a
# container on another; 200 networks with 20 containers each; every command of weave
# there, with its router well, stopped and gone; 1000 networks that come and go, and
# what all of that leaves behind. Takes about five minutes; needs root and a machine
# that does nothing else. Flags go to the driver:
#
#   scripts/bench/networks.sh
#   scripts/bench/networks.sh -rounds 10 -networks 20 -churn 50    a quick look
#   scripts/bench/networks.sh -networks 0 -churn 0 -asks 0         only the first part
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh

need_root
need_go
need_packages nft=nftables ip=iproute2 ss=iproute2 ping=iputils-ping
scratch
step 'building'
BIN=$work/bin ./build.sh >/dev/null
build_reference "$work/reference"
go build -o "$work/netbench" ./scripts/bench/netbench
step "measuring on $(nproc) cores, kernel $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
"$work/netbench" -bin "$work/bin" -plugins "$work/reference" "$@"
