#!/usr/bin/env bash
# report.sh - what this tree does on the CUDA device of this machine, written to RESULTS.md beside this file.
#
# usage: tests/gpu/report.sh [--layers N] [--seconds N] [--out FILE]
#        tests/gpu/report.sh --sim BUILD [--out FILE]      the same steps on the simulated device, at a tiny shape
# Needs nvcc, a driver, and what ./run build needs; no network. Ends after about --seconds (540): what would not fit is
# named as not run. Exit 1 when a check failed or there is no device.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=${BUILD:-build/gpu}
started=$(date +%s)
arguments=()
sim=
while [ $# -gt 0 ]; do
    case $1 in
    --sim) sim=1; build=${2:?--sim needs the folder of a build with -DMGPT_SIMGPU=ON}; shift 2 ;;
    --layers | --seconds | --out) arguments+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    *) sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
done

if [ -n "$sim" ]; then
    exec python3 tests/gpu/report.py "$build" --sim "${arguments[@]}"
fi
command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null || {
    echo "report.sh: no CUDA device here (nvidia-smi finds none); --sim BUILD tries the steps without one" >&2
    exit 1
}
mkdir -p "$build"
cmake -S . -B "$build" -G Ninja -DMGPT_CUDA=ON >"$build/cmake.log" 2>&1 || { cat "$build/cmake.log" >&2; exit 1; }
ninja -C "$build" --quiet all benches
exec python3 tests/gpu/report.py "$build" --started "$started" "${arguments[@]}"
