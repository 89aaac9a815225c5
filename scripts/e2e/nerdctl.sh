#!/bin/bash
# nerdctl runs containers on the network, on two hosts in namespaces of this
# machine, and each fetches a page from the other by name. Needs root.
#
#   scripts/e2e/nerdctl.sh                     builds nerdctl, which takes minutes
#   NERDCTL=DIR scripts/e2e/nerdctl.sh         the one in that directory
set -euo pipefail
if [ -z "${NERDCTL:-}" ]; then
	NERDCTL=$(mktemp -d)
	trap 'rm -rf "$NERDCTL"' EXIT
	(cd "$(dirname "$0")/nerdctl" && CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags '-s -w' -o "$NERDCTL/nerdctl" github.com/containerd/nerdctl/v2/cmd/nerdctl)
fi
PATH=$PATH:$NERDCTL "$(dirname "$0")/run" nerdctl
