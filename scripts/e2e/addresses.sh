#!/bin/bash
# Five hosts give addresses to containers while their routers are killed, the
# network between them is cut, one way and both, and one of them loses its state.
# What every call said is checked: no address may have two holders. Needs root.
#
#   scripts/e2e/addresses.sh                  5 minutes, a new seed
#   DURATION=40s SEED=7 scripts/e2e/addresses.sh
#
# The last lines say what was done and what came of it; 1 is the exit code when
# something was wrong, and then the seed's faults are in the output.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib/shell.sh

need_root
need_go
need_packages ip=iproute2 ss=iproute2 nft=nftables
scratch
export WEAVE_E2E_DURATION=${DURATION:-5m} WEAVE_E2E_SEED=${SEED:-}
step "addresses on five hosts under faults, for $WEAVE_E2E_DURATION"
go test -count=1 -timeout 1h -v -run '^TestNoAddressHasTwoHoldersWhateverHappensToTheHosts$' ./scripts/e2e |
	tee "$work/out" | grep --line-buffered -v '^=== '
# Where the lab is not to be had the test skips, which is no pass here.
grep -q '^--- PASS' "$work/out" || die 'not run'
good 'no address had two holders'
