#!/usr/bin/env bash
# report.sh - what this tree does on the CUDA device of this machine, written to RESULTS.md beside this file, the log to RESULTS.log.
#
# usage: tests/gpu/report.sh [--layers N] [--seconds N] [--work DIR] [--out FILE]
#        tests/gpu/report.sh --sim BUILD [--out FILE]      the same steps on the simulated device, at a tiny shape
# Needs an NVIDIA driver and the CUDA toolkit (nvcc); what else is missing ./run build installs, or says how. Takes about 20 minutes
# and 14 GB of disk below --work (the build folder) for a 7B checkpoint of random weights. What could not be run is named, with the reason.
# Exit 0 when nothing failed, 1 when a check failed or there is no device, 2 for wrong use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=${BUILD:-build/gpu}
started=$(date +%s)
arguments=()
sim=
while [ $# -gt 0 ]; do
    case $1 in
    --sim) sim=1; build=${2:?--sim needs the folder of a build with -DMGPT_SIMGPU=ON}; shift 2 ;;
    --layers | --seconds | --work | --out) arguments+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
    esac
done

fail() { echo "report.sh: $*" >&2; exit 1; }

if [ -n "$sim" ]; then
    exec python3 tests/gpu/report.py "$build" --sim "${arguments[@]}"
fi
command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null ||
    fail "no CUDA device here (nvidia-smi finds none): install the NVIDIA driver, or try the steps without one by --sim BUILD"
# Toolkits are often installed without being on PATH.
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
command -v nvcc >/dev/null ||
    fail "no nvcc on PATH or in /usr/local/cuda/bin: install the CUDA toolkit (12.0 or newer, with cuBLAS and, for links by NCCL, libnccl-dev)"
mkdir -p "$(dirname "$build")"
BUILD=$build ./run build -DMGPT_CUDA=ON
ninja -C "$build" --quiet benches
python=python3 # the goldens need numpy and Pillow
if ! python3 -c 'import numpy, PIL' 2>/dev/null; then
    BUILD=$build ./run tools && python=$build/venv/bin/python ||
        echo "report.sh: no numpy and Pillow for python3: the goldens will be named as not run" >&2
fi
exec "$python" tests/gpu/report.py "$build" --started "$started" "${arguments[@]}"
