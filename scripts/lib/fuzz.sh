# How fuzz targets are found and run. Source it after shell.sh, with scratch called.
# shellcheck shell=bash disable=SC2154

# fuzz_targets PATTERN: the lines FILE:TARGET of the targets whose file matches.
fuzz_targets() {
	grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func /:/' | grep -E "$1" | sort -u
}

# fuzz_binary PACKAGE: its tests as the fuzzer wants them, built when they are first asked for.
fuzz_binary() {
	local binary=$work/fuzzed/${1#./}.test
	[ -x "$binary" ] || go test -c -fuzz . -o "$binary" "$1" >&2 || return
	echo "$binary"
}

# fuzz_one TARGET PACKAGE HOW-LONG: a time, or a number of inputs such as 1000x. The
# fuzzer sometimes fails when the time is over while a worker is at an input, and says no
# more than that; then there is no crasher. What it printed is in $work/fuzz.
fuzz_one() {
	local binary kept
	binary=$(fuzz_binary "$2" 2>"$work/fuzz") && kept=$(go env GOCACHE)/fuzz/$(go list "$2") || return
	for _ in 1 2 3 4; do
		(cd "$2" && "$binary" -test.run '^$' -test.fuzz "^$1\$" -test.fuzztime "$3" -test.timeout 0 -test.fuzzcachedir "$kept") \
			>"$work/fuzz" 2>&1 && return
		grep -q '^    context deadline exceeded$' "$work/fuzz" && ! grep -q 'Failing input' "$work/fuzz" || break
	done
	return 1
}

# fuzz_inputs: how many there were in the last fuzz_one.
fuzz_inputs() { sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$work/fuzz" | tail -n 1; }

# fuzz_names PACKETS SEED: so many packets to pkg/names, changed from its corpora and from
# what Go's fuzzer keeps of its own. What it printed is in $work/fuzz.
fuzz_names() {
	FUZZ_PACKETS=$1 FUZZ_SEED=$2 FUZZ_CORPUS=$(go env GOCACHE)/fuzz/$(go list ./pkg/names) \
		go test -run '^TestNoneOfManyPacketsDoesHarm$' -count=1 -v -timeout 0 ./pkg/names >"$work/fuzz" 2>&1
}
