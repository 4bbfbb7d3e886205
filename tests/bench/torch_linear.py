#!/usr/bin/env python3
"""PyTorch's bf16 linear beside ours: the four products of a layer, same shapes, same threads, same run.

usage: torch_linear.py --layer-bench PROGRAM [--threads 2] [--rows 1,8,32] [--layers 8] [--hidden 1024] [--inter 2752] [--rounds 3]
Needs torch, in a virtual environment of its own (never part of ./run test):
    python3 -m venv build/torch-venv && build/torch-venv/bin/pip install torch
Prints one JSON object: for each number of rows and product the microseconds of both and their ratio (above 1: ours is faster).
Both go through all products of as many layers as --layers says, so that none of them finds its weights in a cache; PyTorch and our program
take turns --rounds times, and the best call of each counts, since other programs only slow it down. PyTorch runs what a model gets from
it: torch.nn.functional.linear on bf16 tensors under inference_mode, oneDNN choosing the instruction set.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings

warnings.filterwarnings("ignore")  # numpy is not needed here

STEPS = 20  # through all layers, in each turn
PARTS = ("q k v", "o", "gate up", "down")


def shapes(hidden, inter):
    """(outputs, inputs) of each product."""
    return {"q k v": (3 * hidden, hidden), "o": (hidden, hidden), "gate up": (2 * inter, hidden), "down": (hidden, inter)}


def time_torch(torch, layers, rows, steps):
    """Best microseconds of each product by part, going through all products of a layer and all layers as a model does."""
    best = dict.fromkeys(PARTS, float("inf"))
    inputs = {part: torch.randn(rows, layers[0][part].shape[1]).to(torch.bfloat16) for part in PARTS}
    with torch.inference_mode():
        for step in range(steps + 1):
            for weights in layers:
                for part in PARTS:
                    start = time.perf_counter_ns()
                    torch.nn.functional.linear(inputs[part], weights[part])
                    took = (time.perf_counter_ns() - start) / 1000
                    if step > 0:  # the first one chooses its code
                        best[part] = min(best[part], took)
    return best


def time_ours(options, rows):
    """The same of our kernels; also the code path."""
    done = subprocess.run([options.layer_bench, "--parts", "--threads", str(options.threads), "--layers", str(options.layers),
                           "--hidden", str(options.hidden), "--inter", str(options.inter), "--rows", str(rows), "--steps", str(STEPS)],
                          check=True, capture_output=True, text=True).stdout
    parts = {name: float(us) for name, us in re.findall(r"^    (\S.*?) +([0-9.]+) us ", done, re.MULTILINE)}
    return {part: parts[part] for part in PARTS}, re.search(r"path (\w+)", done).group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer-bench", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", default="1,8,32")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--inter", type=int, default=2752)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch
    torch.set_num_threads(options.threads)
    layers = [{part: torch.randn(n_out, n_in).to(torch.bfloat16) for part, (n_out, n_in) in shapes(options.hidden, options.inter).items()}
              for _ in range(options.layers)]
    answer = {"torch": torch.__version__, "torch_cpu": torch.backends.cpu.get_cpu_capability(), "threads": options.threads, "rows": {}}
    for rows in map(int, options.rows.split(",")):
        theirs, ours = {}, {}
        for _ in range(options.rounds):
            for best, now in ((theirs, time_torch(torch, layers, rows, STEPS)), (ours, time_ours(options, rows))):
                if isinstance(now, tuple):
                    now, answer["code_path"] = now
                for part, us in now.items():
                    best[part] = min(us, best.get(part, us))
        table = {part: {"torch_us": round(theirs[part], 1), "ours_us": ours[part], "ratio": round(theirs[part] / ours[part], 2)}
                 for part in PARTS}
        both = sum(theirs.values()), sum(ours.values())
        table["sum"] = {"torch_us": round(both[0], 1), "ours_us": round(both[1], 1), "ratio": round(both[0] / both[1], 2)}
        answer["rows"][rows] = table
    print(json.dumps(answer))


if __name__ == "__main__":
    sys.exit(main())
