#!/bin/bash
# Shows what weave does, on three hosts in network namespaces of this machine:
# six containers attached with the real cnitool reach each other by address and
# by name, also while every router is dead. As root, on a fresh Debian 12:
#
#   scripts/demo.sh
#   scripts/demo.sh -dead 60s     routers dead for longer
#   DEMO_SVG=docs/topology.svg scripts/demo.sh     keep a picture of the cluster
#
# It installs what is missing, builds, and says each step. Exit code 0: all of it
# held. It touches no network of this machine and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/shell.sh

cni=github.com/containernetworking/cni
reference=github.com/containernetworking/plugins

# build puts into $work/bin what the demo runs, and the demo itself beside it.
build() {
	export CGO_ENABLED=0 # as build.sh: what they share is compiled once
	BIN=$work/bin ./build.sh
	go build -trimpath -buildvcs=false -o "$work/demo" ./scripts/demo
	go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X $reference/pkg/utils/buildversion.BuildVersion=$(version_of $reference)" \
		-o "$work/bin/" $cni/cnitool $reference/plugins/meta/portmap
}

version_of() { go list -m -f '{{.Version}}' "$1"; }

need_go
need_packages ip=iproute2 nft=nftables ping=iputils-ping
scratch
chmod 755 "$work"
step 'building (some minutes the first time)'
build >"$work/build.log" 2>&1 || {
	tail -n 30 "$work/build.log" >&2
	die 'the build failed'
}
built=$(sed -n 's/ in .*:/:/p' "$work/build.log" | tail -n 1)
good "$built; cnitool $(version_of $cni), portmap $(version_of $reference)  (${SECONDS} s)"
"$work/demo" -bin "$work/bin" ${DEMO_SVG:+-svg "$DEMO_SVG"} "$@"
