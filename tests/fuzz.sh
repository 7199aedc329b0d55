#!/bin/sh
# Runs each fuzzer of $B/fuzz for $FUZZ_SECONDS, two at a time, on a copy of its seeds
# (tests/corpus/<name>): the tree is never written to. An input that fails is kept in
# $B/fuzz/failures. Ends with "N passed, N failed, N skipped"; exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
B=${B:-build}
FUZZ_SECONDS=${FUZZ_SECONDS:-20}

if [ "${1:-}" = --one ]; then
    program=$2 work=$3
    name=${program##*/fuzz_}
    seeds=$work/$name.corpus
    mkdir -p "$seeds" "$B/fuzz/failures"
    [ -d "tests/corpus/$name" ] && cp "tests/corpus/$name"/* "$seeds"/
    # Far above what a healthy run takes, so only a fuzzer that hangs as a whole meets it.
    timeout $((FUZZ_SECONDS * 2 + 60)) "$program" -max_total_time="$FUZZ_SECONDS" -rss_limit_mb=512 \
        -timeout=5 -print_final_stats=1 -artifact_prefix="$B/fuzz/failures/$name-" "$seeds" >"$work/$name.log" 2>&1
    code=$?
    runs=$(awk '/^stat::number_of_executed_units/ { print $2 }' "$work/$name.log")
    echo "fuzz_$name: ${runs:-0} inputs, exit code $code"
    if [ $code -ne 0 ] || [ "${runs:-0}" -eq 0 ]; then
        echo failed >"$work/$name.result"
        tail -n 40 "$work/$name.log"
    else
        echo passed >"$work/$name.result"
    fi
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for program in "$B"/fuzz/fuzz_*; do
    [ -x "$program" ] && [ -e "tests/${program##*/}.c" ] && echo "$program"
done >"$work/list"
export B FUZZ_SECONDS
xargs -P 2 -I '{}' sh tests/fuzz.sh --one '{}' "$work" <"$work/list"

passed=$(cat "$work"/*.result 2>/dev/null | grep -c passed)
failed=$(($(wc -l <"$work/list") - passed))
if [ ! -s "$work/list" ]; then
    echo "no fuzzers in $B/fuzz: make fuzzers"
    failed=1
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
