#!/bin/bash
# Fuzzes decoders for long, by itself those of DNS, in two parts. The first is Go's fuzzer,
# which looks for inputs that reach new code: some thousands a second. The second, for
# pkg/names alone, changes what the first has found and holds it against the same checks,
# on all processors: some hundred thousand packets a second, so that there are 10^8 in all
# (TestNoneOfManyPacketsDoesHarm). Any user can run it. A crasher is written to its
# package's testdata, and is from then on a test.
#
#   scripts/fuzz.sh                      a minute for each target of pkg/names, then 10^8 packets in all
#   INPUTS=1000000 scripts/fuzz.sh       so many packets in all; 0: no second part
#   TIME=10m scripts/fuzz.sh             so long for each target; 0: no first part
#   SEED=7 scripts/fuzz.sh               the second part of a seed, which it prints; else a new one
#   scripts/fuzz.sh pkg/wire pkg/ledger  those of other packages; all of them: scripts/fuzz.sh .
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/shell.sh
. scripts/lib/fuzz.sh

INPUTS=${INPUTS:-100000000}
TIME=${TIME:-1m}
SEED=${SEED:-$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')}

need_go
scratch
[ $# -gt 0 ] || set -- pkg/names
for where; do
	fuzz_targets "^\./${where#.}"
done | sort -u >"$work/targets"
count=$(wc -l <"$work/targets")
[ "$count" -gt 0 ] || die "no fuzz target below $*"

failed=0 total=0 packets=0
# guided: the first part, one target after another.
guided() {
	local file target inputs
	while IFS=: read -r file target; do
		step "$target of $(dirname "$file"), $TIME"
		if fuzz_one "$target" "$(dirname "$file")" "$TIME" </dev/null; then
			inputs=$(fuzz_inputs)
			total=$((total + ${inputs:-0}))
			[ "$(dirname "$file")" != ./pkg/names ] || packets=$((packets + ${inputs:-0}))
			good "${inputs:-0} inputs"
		else
			cat "$work/fuzz"
			failed=$((failed + 1))
		fi
	done <"$work/targets"
}

# volume: the second part, what is left of the packets.
volume() {
	local left=$((INPUTS - packets)) begin=$SECONDS
	[ "$left" -gt 0 ] || return 0
	step "$left packets more, seed $SEED"
	if fuzz_names "$left" "$SEED"; then
		sed -n 's/^ *volume_test.go:[0-9]*: /    /p' "$work/fuzz"
		total=$((total + left))
		good "$left packets in $((SECONDS - begin)) s"
	else
		cat "$work/fuzz"
		failed=$((failed + 1))
	fi
}

[ "$TIME" = 0 ] || guided
! grep -q '^\./pkg/names/' "$work/targets" || volume
echo "$count targets, $total inputs, $failed failed, in $((SECONDS / 60)) min $((SECONDS % 60)) s"
[ "$failed" = 0 ]
