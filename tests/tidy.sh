#!/bin/sh
# What a reader should not have to check by eye: format, directions of includes, purity, sizes.
# Ends with "N passed, N failed, N skipped"; exit code 1 when one failed.
set -u
cd "$(dirname "$0")/.."
B=${B:-build}
passed=0 failed=0 skipped=0

# files SUFFIX...: what is in the tree and not ignored, committed or not yet.
files() {
    git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do
        [ -e "$file" ] && echo "$file"
    done
}

# check NAME COMMAND...: passes when the command ends well and prints nothing.
check() {
    name=$1
    shift
    if found=$("$@" 2>&1) && [ -z "$found" ]; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        echo "$found" | head -n 30
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "skipped $1: $2"
}

c_format() {
    files '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

# may_include FOLDER ALLOWED...: includes of our own name the folder; others than these are errors.
may_include() {
    folder=$1
    shift
    allowed=$(echo "$folder $*" | tr ' ' '|')
    files "$folder/*.c" "$folder/*.h" | xargs -r grep -nE '^#include "' /dev/null |
        grep -vE "#include \"($allowed)/"
    true
}

directions() {
    may_include proto
    may_include server proto
    may_include gossip proto
    may_include exchange proto
    may_include shard server proto
    may_include wss server proto
    may_include cmd proto server gossip exchange shard wss
}

# What decides. proto/sockaddr only lays out structs; of gossip/, the thread and what finds other
# beacons are made of system calls.
pure_files() {
    files 'proto/*.[ch]' 'server/*.[ch]' 'gossip/*.[ch]' |
        grep -vE '^(proto/sockaddr|gossip/(thread|discover(_[a-z]+)?|resolve|errand|registry_link))[.]'
}

# Bytes and time come in as arguments: no system call, no clock, no memory of its own.
pure_headers() {
    pure_files | xargs -r grep -nE \
        '^#include <(sys/|linux/|netinet/|net/|unistd|time|fcntl|poll|signal|pthread|threads|netdb|liburing|ifaddrs|dirent|spawn)' \
        /dev/null
    true
}

pure_calls() {
    pure_files | grep '[.]c$' | xargs -r grep -nE \
        '\<(malloc|calloc|realloc|aligned_alloc|mmap|clock_gettime|gettimeofday|getrandom|random|rand|getenv|fopen|exit|abort)\(' \
        /dev/null
    true
}

# With our format a function's body opens and closes in the first column.
long_functions() {
    files '*.c' | grep -v '^tests/' | xargs -r awk '
        FNR == 1 { open = 0 }
        /^\{/ { open = FNR }
        /^\}/ && open { if (FNR - open > 100) print FILENAME ":" open ": " FNR - open " lines"; open = 0 }'
}

# The brackets keep this file from finding itself.
unfinished_marks() {
    files '*' | xargs grep -nIE '\<(TO[D]O|FIX[M]E|XX[X])\>' /dev/null
    true
}

shell_scripts() {
    for script in $(files '*.sh'); do
        case $(head -n 1 "$script") in
        *bash*) bash -n "$script" || return 1 ;;
        *) sh -n "$script" || return 1 ;;
        esac
    done
    bash -n .ci/run && bash -n deploy/beaconctl.bash
}

python_files() {
    files '*.py' | xargs python3 -c '
import sys
for name in sys.argv[1:]:
    compile(open(name).read(), name, "exec")'
}

manuals() {
    for page in "$B"/beacon.8 "$B"/beacon.conf.5 "$B"/beaconctl.1; do
        mandoc -T lint -W warning "$page"
    done
}

headers_alone() {
    for header in $(files 'proto/*.h' 'server/*.h' 'shard/*.h' 'wss/*.h' 'cmd/*.h' 'gossip/*.h' 'exchange/*.h'); do
        echo "#include \"$header\"" | gcc -std=c11 -D_GNU_SOURCE -I. -Wall -Wextra -fsyntax-only -x c - || return 1
    done
}

check "clang-format" c_format
check "includes go one way" directions
check "what is pure includes no system" pure_headers
check "what is pure calls no system" pure_calls
check "no function over 100 lines" long_functions
check "each header compiles alone" headers_alone
check "no unfinished marks" unfinished_marks
check "shell scripts parse" shell_scripts
check "Python files compile" python_files
if [ -e "$B/beacon.8" ] && [ -e "$B/beacon.conf.5" ] && [ -e "$B/beaconctl.1" ]; then
    check "man pages" manuals
else
    skip "man pages" "not built: make"
fi
if [ -e "$B/beacon.bash" ]; then
    check "completion parses" bash -n "$B/beacon.bash"
else
    skip "completion parses" "not built: make"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
