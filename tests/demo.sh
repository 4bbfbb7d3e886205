#!/usr/bin/env bash
# demo.sh BUILD MODEL - starts the daemon with two CPU stages, makes one picture through it, ends the daemon.
set -euo pipefail
build=$1 model=$2
prompt="a small red sphere left of a large blue cube"
picture=$build/demo.png
log=$build/demo.log

coproc daemon { exec "$build/bin/mgptd" --model "$model" --stages 2 --http 127.0.0.1:0 2>"$log"; }
pid=$daemon_PID
trap 'kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true' EXIT
read -r ready <&"${daemon[0]}" || { cat "$log" >&2; exit 1; }
url=$(sed -n 's/.*"http": *"\([^"]*\)".*/\1/p' <<<"$ready")

echo "daemon: $url, two stage workers and a codec on this machine's CPU (log: $log)"
echo "prompt: $prompt"
"$build/bin/mgpt" generate "$prompt" --seed 2 --url "$url" -o "$picture"
if [ "${model#tests/golden}" != "$model" ]; then
    echo "The picture is noise: this model is made of random numbers, there is no trained one in the tree."
fi
echo "picture: $picture"
echo "'./run serve' keeps a daemon running at http://127.0.0.1:8086; README.md shows what to ask it."
