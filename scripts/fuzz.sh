#!/bin/bash
# Fuzzes decoders for long: by itself those of DNS, with 10^8 packets in all, which takes
# some hours. Any user can; a crasher is written to its package's testdata, and is from
# then on a test.
#
#   scripts/fuzz.sh                      10^8 packets, evenly over the targets of pkg/names
#   INPUTS=1000000 scripts/fuzz.sh       so many in all
#   TIME=10m scripts/fuzz.sh             so long for each target
#   scripts/fuzz.sh pkg/wire pkg/ledger  those of other packages; all of them: scripts/fuzz.sh .
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/shell.sh
. scripts/lib/fuzz.sh

INPUTS=${INPUTS:-100000000}
TIME=${TIME:-}

need_go
scratch
[ $# -gt 0 ] || set -- pkg/names
for where; do
	fuzz_targets "^\./${where#.}"
done | sort -u >"$work/targets"
count=$(wc -l <"$work/targets")
[ "$count" -gt 0 ] || die "no fuzz target below $*"
long=${TIME:-$(((INPUTS + count - 1) / count))x}

failed=0 total=0
while IFS=: read -r file target; do
	step "$target of $(dirname "$file"), $long"
	if fuzz_one "$target" "$(dirname "$file")" "$long" </dev/null; then
		inputs=$(fuzz_inputs)
		total=$((total + ${inputs:-0}))
		good "${inputs:-0} inputs"
	else
		cat "$work/fuzz"
		failed=$((failed + 1))
	fi
done <"$work/targets"
echo "$count targets, $total inputs, $failed failed, in $((SECONDS / 60)) min $((SECONDS % 60)) s"
[ "$failed" = 0 ]
