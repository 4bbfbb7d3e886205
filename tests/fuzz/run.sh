#!/bin/sh
# Builds all fuzz targets and runs each of them for some time, JOBS [2] side by side.
# usage: tests/fuzz/run.sh SECONDS [BUILD [TARGET...]]      SECONDS for each target; BUILD: [build-fuzz]; targets as "pickle"
# What is found lies in BUILD/fuzz/found; exit 1 when there is anything. The corpora of the tree are read, never written.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '3p' "$0" | cut -c3- >&2; exit 2; }
seconds=$1
build=${2:-$root/build-fuzz}
jobs=${JOBS:-2}
[ $# -ge 2 ] && shift 2 || shift 1

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER="${CC:-clang}" -DMGPT_FUZZ=ON -DMGPT_CUDA=OFF >"$build.log" 2>&1 ||
    { cat "$build.log" >&2; exit 1; }
rm -f "$build.log"
targets=$*
[ -n "$targets" ] || targets=$(cd "$here" && ls ./*_fuzz.c | sed 's,^\./,,; s,_fuzz\.c$,,')
programs=
for name in $targets; do programs="$programs ${name}_fuzz"; done
# shellcheck disable=SC2086 # the list is meant to be split
ninja -C "$build" -j "$jobs" $programs >"$build/fuzz.log" 2>&1 || { tail -30 "$build/fuzz.log" >&2; exit 1; }

found=$build/fuzz/found
mkdir -p "$found"
run_target() {
    work=$build/fuzz/corpus-$1
    mkdir -p "$work" "$here/corpus/$1"
    dictionary=
    [ -f "$here/$1.dict" ] && dictionary=-dict=$here/$1.dict
    # Limits: 2 GiB of memory, 10 s for an input, 64 KiB of input (the corpora hold smaller ones).
    # shellcheck disable=SC2086
    if "$build/fuzz/$1_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$found/$1-" $dictionary "$work" "$here/corpus/$1" \
        >"$build/fuzz/$1.log" 2>&1; then
        executions=$(grep -o 'number_of_executed_units: [0-9]*' "$build/fuzz/$1.log" | grep -o '[0-9]*$')
        reached=$(sed -n 's/.*DONE *cov: \([0-9]*\) ft: \([0-9]*\) .*/coverage \1, features \2/p' "$build/fuzz/$1.log")
        echo "$1: $executions executions in $seconds s, $reached, nothing found"
    else
        echo "$1: FAILED"
        grep -E 'ERROR|SUMMARY|Test unit|runtime error' "$build/fuzz/$1.log" | head -5
        return 1
    fi
}

run_lane() { # every jobs-th target
    failed=0 at=0
    for name in $targets; do
        at=$((at + 1))
        [ $((at % jobs)) -ne "$1" ] || run_target "$name" || failed=1
    done
    return $failed
}

lanes=
lane=0
while [ $lane -lt "$jobs" ]; do
    run_lane $lane &
    lanes="$lanes $!"
    lane=$((lane + 1))
done
failed=0
for pid in $lanes; do wait "$pid" || failed=1; done
exit $failed
