#!/bin/sh
# Plays the simulator (pkg/simtest): a line for each scenario, then how many seeds each
# deliberate mistake takes to be caught. Exits 1 when a seed was bad or a mistake was not
# caught.
#
#   scripts/sim.sh 100000              seeds 1 to 100000 of every scenario, then the mistakes
#   scripts/sim.sh 100000 clone        of one scenario; no mistakes
#   SECONDS_EACH=20 scripts/sim.sh     new random seeds, for 20 seconds a scenario; no mistakes
#
# A bad seed is replayed with its trace by: sim -scenario NAME -replay SEED
# (go build -o sim ./pkg/simtest/cmd/sim). It uses all processors; JOBS=1 for one.
set -eu
cd "$(dirname "$0")/.."

seeds=${1:-1000}
only=${2:-}
jobs=${JOBS:-$(nproc)}
bar=${MUTATION_SEEDS:-2000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sim=$work/sim
go build -o "$sim" ./pkg/simtest/cmd/sim

scenarios=$only
[ -n "$scenarios" ] || scenarios=$("$sim" -list | cut -f1)

# play SCENARIO: one process a processor, each with its part of the seeds.
play() {
	i=0
	pids=
	while [ "$i" -lt "$jobs" ]; do
		out=$work/$1.$i
		if [ -n "${SECONDS_EACH:-}" ]; then
			"$sim" -scenario "$1" -seconds "$SECONDS_EACH" >"$out" &
		else
			part=$(((seeds + jobs - 1) / jobs))
			"$sim" -scenario "$1" -first $((1 + i * part)) -seeds "$part" >"$out" &
		fi
		pids="$pids $!"
		i=$((i + 1))
	done
	bad=0
	for p in $pids; do
		wait "$p" || bad=1
	done
	cat "$work/$1".* | awk -F '\t' -v sums="$work/sums" '
		{ seeds += $2; bad += $3; cpu += $4; first = first (first ? "," : "") $5; if ($6 != "-" && !example) example = $6 }
		END {
			print seeds, bad >>sums
			printf "%-12s %10d %6d %10.0f   first %s%s\n", $1, seeds, bad, (cpu > 0 ? seeds / cpu : 0), first, (example ? "   BAD seed " example : "")
		}'
	return $bad
}

status=0
printf '%-12s %10s %6s %10s\n' scenario seeds bad 'seeds/s'
for s in $scenarios; do
	play "$s" || status=1
done
awk '{ seeds += $1; bad += $2 } END { printf "%-12s %10d %6d\n", "in all", seeds, bad }' "$work/sums"

if [ -z "$only" ] && [ -z "${SECONDS_EACH:-}" ]; then
	printf '\n%-46s %8s  %-12s %s\n' 'mistake made on purpose' seeds scenario 'caught as'
	"$sim" -mutations >"$work/mutations"
	while read -r m; do
		if "$sim" -mutation "$m" -seeds "$bar" >"$work/hunt"; then
			awk -F '\t' '{ printf "%-46s %8d  %-12s %.90s\n", $1, $2, $3, $5 }' "$work/hunt"
		else
			printf '%-46s %8s  NOT CAUGHT\n' "$m" ">$bar"
			status=1
		fi
	done <"$work/mutations"
fi
exit $status
