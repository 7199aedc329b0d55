#!/bin/sh
# Runs every unit test program of $B/tests and counts its cases.
# Ends with "N passed, N failed, N skipped"; exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
B=${B:-build}
passed=0 failed=0 skipped=0
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}" CMOCKA_MESSAGE_OUTPUT=STDOUT

out=$(mktemp)
trap 'rm -f "$out"' EXIT

# The sum of "[  WORD  ] N test(s)" over all groups that a program ran.
count() {
    awk -v word="$1" '$1 == "[" && $2 == word && $4 ~ /^[0-9]+$/ { n += $4 } END { print n + 0 }' "$out"
}

for program in "$B"/tests/test_*; do
    [ -x "$program" ] && [ ! -d "$program" ] || continue
    # A program whose source is gone would test what is no more.
    [ -e "tests/${program##*/}.c" ] || continue
    timeout 120 "$program" >"$out" 2>&1
    code=$?
    good=$(count PASSED) bad=$(count FAILED) left=$(count SKIPPED)
    # A crash, a sanitizer's report or a program without cases shows in no count.
    if [ $code -ne 0 ] && [ "$bad" -eq 0 ] || [ $((good + bad)) -eq 0 ]; then
        bad=$((bad + 1))
    fi
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left))
    echo "${program##*/}: $good passed, $bad failed, $left skipped (exit code $code)"
    [ "$bad" -eq 0 ] || tail -n 60 "$out"
done

if [ $((passed + failed)) -eq 0 ]; then
    echo "no unit tests in $B/tests: make tests B=$B"
    failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
