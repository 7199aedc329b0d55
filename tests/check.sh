#!/bin/sh
# Everything that must hold, in one run: two compilers, unit tests, scenarios, the simulator, the
# first two again under sanitizers, every fuzzer for a while, tidiness. `make check` installs what this needs first.
# Ends with "N passed, N failed, N skipped" over all; exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
# A make of our own: not the jobs and variables of the one that called us.
unset MAKEFLAGS MFLAGS MAKELEVEL B SAN CC
passed=0 failed=0 skipped=0 failures=
out=$(mktemp)
trap 'rm -f "$out"' EXIT
began=$(date +%s)

# stage NAME COMMAND...: output as it comes, then the stage's result and time. Its last line may be a
# tally; a stage without one counts as one, like a program that builds.
stage() {
    name=$1
    shift
    echo "== $name"
    from=$(date +%s)
    { "$@" 2>&1; echo "exit code $?"; } | tee "$out" | grep -v '^exit code [0-9]*$'
    code=$(sed -n 's/^exit code //p' "$out" | tail -n 1)
    tally=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$out" | tail -n 1)
    [ -n "$tally" ] || if [ "$code" = 0 ]; then tally="1 passed, 0 failed, 0 skipped"; else tally="0 passed, 1 failed, 0 skipped"; fi
    # shellcheck disable=SC2086 # words
    set -- $tally
    bad=$3
    [ "$code" = 0 ] || [ "$bad" -ne 0 ] || bad=1
    passed=$((passed + $1)) failed=$((failed + bad)) skipped=$((skipped + $5))
    [ "$bad" -eq 0 ] || failures="$failures; $name"
    echo "== $name: $1 passed, $bad failed, $5 skipped in $(($(date +%s) - from)) s"
}

build() {
    make --no-print-directory -s -j2 "$@"
}

# What happens in the simulator is a matter of the seed alone: two compilers, one trace. The time of
# the processor is not.
same_traces() {
    for scenario in chaos cramped update heal bridge leave clock; do
        for folder in build build/clang; do
            "$folder"/tests/sim-beacons --scenario $scenario --seed 7 | sed 's/ cpu=[^ ]*//' >"$folder/sim.trace" || return 1
        done
        grep -q "hash=" build/sim.trace && diff build/sim.trace build/clang/sim.trace || return 1
    done
}

stage "build, gcc" build all tests simulator
stage "unit tests" env B=build sh tests/units.sh
stage "scenarios" env B=build python3 tests/scenarios.py
stage "simulator" build/tests/sim-beacons
stage "tidy" env B=build sh tests/tidy.sh
stage "build, clang" build all tests simulator B=build/clang CC=clang
stage "unit tests, clang" env B=build/clang sh tests/units.sh
stage "simulator, one trace of two compilers" same_traces
stage "build, ASan and UBSan" build all tests B=build/asan SAN=address,undefined
stage "unit tests, ASan and UBSan" env B=build/asan sh tests/units.sh
stage "scenarios, ASan and UBSan" env B=build/asan python3 tests/scenarios.py
stage "build, TSan" build all tests B=build/tsan SAN=thread
stage "unit tests, TSan" env B=build/tsan sh tests/units.sh
stage "scenarios, TSan" env B=build/tsan python3 tests/scenarios.py
stage "build, fuzzers" build fuzzers
stage "fuzzers" env B=build FUZZ_SECONDS="${FUZZ_SECONDS:-10}" sh tests/fuzz.sh

echo "checked in $(($(date +%s) - began)) s${failures:+, failed in:${failures#;}}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
