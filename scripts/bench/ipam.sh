#!/bin/bash
# Times an address: allocate and release through the exec'd weave-ipam, with its
# router, beside the exec'd host-local, with none to 20,000 reservations there
# already; then the router alone over its socket, the allocator alone in one
# process, and what a ledger of many hosts costs. Takes about ten minutes; needs
# root and a machine that does nothing else. Flags go to the driver:
#
#   scripts/bench/ipam.sh
#   scripts/bench/ipam.sh -n 20 -existing 0,1000 -calls 500 -benchtime 100x    a quick look
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh

need_root
need_go
need_packages nft=nftables ip=iproute2
scratch
step 'building'
BIN=$work/bin ./build.sh >/dev/null
build_reference "$work/reference"
go test -c -o "$work/ipam.test" ./pkg/ipam
go build -o "$work/ipambench" ./scripts/bench/ipambench
step "measuring on $(nproc) cores, kernel $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
"$work/ipambench" -bin "$work/bin" -plugins "$work/reference" -allocator "$work/ipam.test" "$@"
