#!/bin/sh
# Runs every unit test program of $B/tests, two at a time, and counts its cases.
# Ends with "N passed, N failed, N skipped"; exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
B=${B:-build}
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}" CMOCKA_MESSAGE_OUTPUT=STDOUT

# The sum of "[  WORD  ] N test(s)" over all groups that a program ran.
count() {
    awk -v word="$1" '$1 == "[" && $2 == word && $4 ~ /^[0-9]+$/ { n += $4 } END { print n + 0 }' "$2"
}

if [ "${1:-}" = --one ]; then
    program=$2 work=$3
    out=$work/${program##*/}
    timeout 120 "$program" >"$out" 2>&1
    code=$?
    good=$(count PASSED "$out") bad=$(count FAILED "$out") left=$(count SKIPPED "$out")
    # A crash, a sanitizer's report or a program without cases shows in no count.
    if [ $code -ne 0 ] && [ "$bad" -eq 0 ] || [ $((good + bad)) -eq 0 ]; then
        bad=$((bad + 1))
    fi
    echo "$good $bad $left" >"$out.result"
    echo "${program##*/}: $good passed, $bad failed, $left skipped (exit code $code)"
    [ "$bad" -eq 0 ] || tail -n 60 "$out"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Long simulations in one thread: a look-out for races costs minutes there and can see nothing.
of_one_thread='test_member_mesh test_sync test_gossip'
for program in "$B"/tests/test_*; do
    [ -x "$program" ] && [ ! -d "$program" ] || continue
    name=${program##*/}
    # A program whose source is gone would test what is no more.
    [ -e "tests/$name.c" ] || continue
    case "${B##*/} $of_one_thread " in
    tsan*" $name "*) echo "0 0 1" >"$work/$name.result" ;;
    *) echo "$program" ;;
    esac
done | xargs -r -P 2 -I '{}' sh tests/units.sh --one '{}' "$work"

cat "$work"/*.result 2>/dev/null | awk '
    { passed += $1; failed += $2; skipped += $3 }
    END {
        if (passed + failed == 0) {
            print "no unit tests: make tests"
            failed = 1
        }
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0
    }'
