#!/bin/bash
# containerd runs containers on the network, on two hosts in namespaces of this
# machine, and each fetches a page from the other by name. Needs root.
#
#   scripts/e2e/containerd.sh
#   REFERENCE=1 scripts/e2e/containerd.sh    the same over the reference bridge: all but weave
exec "$(dirname "$0")/run" containerd
