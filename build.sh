#!/bin/sh
# Builds the router, the command and the plugins into bin/: static, stripped,
# without paths of this machine, stamped with a version.
#
#   VERSION=v0.2.0 ./build.sh     another version than git's tag
#   BIN=/opt/cni/bin ./build.sh   another directory
#   GOARCH=arm64 ./build.sh       any variable of the go command
set -eu
cd "$(dirname "$0")"

BIN=${BIN:-bin}
VERSION=${VERSION:-$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo v0.1.0)}
module=github.com/weave-cni/weave-cni

# A program is a directory of plugins/KIND or cmd with a main package. One call
# of go builds them all, so what they share is compiled and linked in parallel.
names=
set --
for dir in plugins/*/* cmd/*; do
	if grep -qs '^package main' "$dir"/*.go; then
		set -- "$@" "./$dir"
		names="$names ${dir##*/}"
	fi
done

mkdir -p "$BIN"
# grpcnotrace leaves out a debugging page, and the template language with it.
CGO_ENABLED=0 "${GO:-go}" build -trimpath -buildvcs=false -tags grpcnotrace \
	-ldflags "-s -w -X $module/pkg/cniconf.Version=$VERSION -X main.version=$VERSION" \
	-o "$BIN/" "$@"
echo "$VERSION in $BIN:$names"
