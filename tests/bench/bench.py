#!/usr/bin/env python3
"""The standard set of measurements: `./run bench`. Writes RESULTS.md and concurrency.svg beside this file.

usage: bench.py BUILD [--quick] [--out FOLDER] [--torch PYTHON]
BUILD holds bin/, benches/ and tests/ (targets all and benches). The checkpoint of random weights is made in BUILD/bench-model when it is
missing. --quick: a small model and few pictures, to try the script. --torch: a Python with torch [BUILD/torch-venv/bin/python, if there].
Every section is measured in this run on this machine; a section that fails is named with its reason, and the exit code is 1.
"""
import argparse
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPE = {"hidden": 1024, "inter": 2752, "layers": 16, "heads": 16, "kv_heads": 16, "vocab": 65536}  # of issue 7
QUICK = {"hidden": 256, "inter": 640, "layers": 4, "heads": 4, "kv_heads": 4, "vocab": 65536}
DEMO = {"hidden": 256, "inter": 640, "layers": 6, "heads": 4, "kv_heads": 4}  # deploy/demo-model
LEVELS = "1,2,4,8,16,24,48"
TOKENS = 76  # of a picture of 128x128
TOGETHER = 24  # requests at once, of the comparison with the simulation
OPENING_TOKENS = 5  # of a prompt beside its text: the beginning, the end of the turn, the picture's start and size
WARM = 2  # pictures before what is measured, of the real burst and of the simulated one
STEP_GOALS = {1: 0.85, 8: 0.80, 32: 0.60}
LOOK_S = 2  # at what else the machine does
BUSY_SHARE = 0.05  # more of it spoils the numbers
COMMAND_LIMIT_S = 900  # of one program; the whole set takes 6 to 15 minutes
TURNS, TURNS_LEAST = 6, 3  # pictures at each place; fewer where a table of levels would take longer than
TABLE_S = 150
STAGE_TURNS = 3  # of one worker and two


class Bench:
    def __init__(self, options):
        self.build = os.path.abspath(options.build)
        self.quick = options.quick
        self.shape = QUICK if options.quick else SHAPE
        self.model = os.path.join(self.build, "bench-model-quick" if options.quick else "bench-model")
        self.size = "64x64" if options.quick else "128x128"
        self.torch = options.torch or os.path.join(self.build, "torch-venv/bin/python")
        self.out = options.out
        self.lines, self.failures = [], []
        self.reports, self.steps = {}, {}
        self.goals = []

    def program(self, *path):
        return os.path.join(self.build, *path)

    def run(self, *command, env=None, stdin=""):
        """Stdout and stderr of a program that must succeed."""
        done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True, timeout=COMMAND_LIMIT_S,
                              env=dict(os.environ, **(env or {})))
        if done.returncode:
            raise RuntimeError(f"{os.path.basename(str(command[0]))}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout, done.stderr

    def say(self, *lines):
        self.lines += lines

    def section(self, title, measure):
        started = time.monotonic()
        self.say("", f"## {title}", "")
        try:
            measure()
        except (RuntimeError, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as failure:
            self.failures.append(title)
            self.say(f"NOT MEASURED: {failure}")
        print(f"== {title}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    def goal(self, what, value, wanted, least=True):
        """A line of the summary: `wanted` is the least value, or with least=False the largest."""
        met = value >= wanted if least else value <= wanted
        self.goals.append([what, f"{value:.3g}", f"{'>=' if least else '<='} {wanted:g}", "yes" if met else "NO"])

    def table(self, head, rows):
        self.say("| " + " | ".join(head) + " |", "|" + " --- |" * len(head))
        self.say(*("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows))

    # ---- the model ----

    def make_model(self):
        if os.path.exists(os.path.join(self.model, "config.json")):
            return
        shape = ",".join(f"{key}={value}" for key, value in self.shape.items())
        self.run(self.program("bin/mgpt"), "make-checkpoint", "--shape", shape, "--seed", 1, "--out", self.model)

    def turns(self):
        """By what a step of 32 rows, 16 guided pictures, took."""
        if self.quick or 32 not in self.steps:
            return TURNS
        a_turn_s = sum(map(int, LEVELS.split(","))) / 16 * TOKENS * self.steps[32]["ms"] / 1000
        return min(TURNS, max(TURNS_LEAST, round(TABLE_S / a_turn_s)))

    def bench(self, *more, env=None):
        out, log = self.run(self.program("bin/mgpt"), "bench", "--local", self.model, "--size", self.size, "--turns", self.turns(), "--json", *more,
                            env=env)
        return json.loads(out), log

    def template_tokens(self):
        """With which every prompt begins: the scheduler computes them once."""
        out, _ = self.run(self.program("bin/mgpt"), "inspect", "tokenize", "--model", self.model,
                          stdin=f"Generate an image of {self.size} according to the following prompt:\n")
        return len(json.loads(out))

    # ---- kernels ----

    def layer_bench_command(self, rows, threads, layers, *more, steps=30, shape=None):
        shape = shape or self.shape
        return [str(word) for word in (self.program("benches/layer_bench"), "--rows", rows, "--threads", threads, "--layers", layers,
                                       "--steps", steps, "--hidden", shape["hidden"], "--inter", shape["inter"], "--heads", shape["heads"],
                                       "--kv-heads", shape["kv_heads"], *more)]

    def layer_bench(self, *arguments, **options):
        """Steps by number of rows: {rows: {ms, best_ms, limit_ms, share, best_share, given_share}}, and what else was said."""
        out, _ = self.run(*self.layer_bench_command(*arguments, **options))
        return parse_layer_bench(out), out

    def decode_steps(self):
        steps, out = self.layer_bench("1,8,32", 2, self.shape["layers"], steps=60)
        path = re.search(r"path (\w+)", out).group(1)
        self.steps = steps
        for n, step in steps.items():
            self.goal(f"decode step of {n} rows: limit / time", step["share"], STEP_GOALS[n])
        self.say(f"`layer_bench --rows 1,8,32 --threads 2 --layers {self.shape['layers']}`: one worker, 2 threads, context 192, path {path}. "
                 "share = limit / time; medians of the steps, the best step in brackets. As given: the mean step beside the limit by what the machine "
                 "gave around it in the mean.", "")
        self.table(["rows", "ms a step", "limit ms", "share", "goal", "as given", "GB/s of", "GFLOP/s of"],
                   [[n, f"{s['ms']:.2f} ({s['best_ms']:.2f})", f"{s['limit_ms']:.2f}", f"{s['share']:.2f} ({s['best_share']:.2f})",
                     STEP_GOALS[n], f"{s['given_share']:.2f}", s["bandwidth"], s["products"]] for n, s in steps.items()])
        self.operations()

    def operations(self):
        _, out = self.layer_bench("1,8,32", 2, 4, "--parts")
        parts = {}
        for text in re.split(r"^rows +", out, flags=re.MULTILINE)[1:]:
            for name, *numbers in re.findall(r"^    (\S.*?) +([0-9.]+) us +([0-9.]+) GB/s +([0-9.]+) GFLOP/s$", text, re.MULTILINE):
                parts.setdefault(name, []).append(" / ".join(numbers))
        self.say("", "Each operation of a layer by itself (`layer_bench --parts`), its fastest call: us / GB/s read and written / GFLOP/s. Keys, values "
                 "and weights come from memory, activations from the caches.", "")
        self.table(["operation", "1 row", "8 rows", "32 rows"], [[name] + cells for name, cells in parts.items()])

    def side_by_side(self, command, n):
        """Milliseconds of a step of n rows in each of two such processes, on a CPU each."""
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise RuntimeError("needs two CPUs")
        pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda cpu=cpu: os.sched_setaffinity(0, {cpu}))
                for cpu in cpus[:2]]
        outs = [p.communicate(timeout=COMMAND_LIMIT_S)[0] for p in pair]
        return [parse_layer_bench(out)[n]["ms"] for out in outs]

    def two_stages(self):
        """Two processes of one thread and half the layers each, at the same time on a CPU each, against one of two threads."""
        half = self.shape["layers"] // 2
        rows = []
        for n in (8, 32):
            turns = []
            for _ in range(STAGE_TURNS):
                one = self.layer_bench(n, 2, self.shape["layers"])[0][n]["ms"]
                two = self.side_by_side(self.layer_bench_command(n, 1, half, steps=60), n)
                turns.append([one / max(two), one, two])
            share, one, two = sorted(turns)[STAGE_TURNS // 2]
            self.goal(f"two stages of 1 thread against one of 2, {n} rows", share, 0.95)
            rows.append([n, f"{one:.2f}", " / ".join(f"{t:.2f}" for t in two), f"{share:.2f}", ", ".join(f"{t[0]:.2f}" for t in turns)])
        self.say(f"Two workers of 1 thread with {half} layers each, at the same time: a step of both is two micro-batches through half of the "
                 "model. sum = rows a second against one worker of 2 threads with all layers, measured in turns; the goal is 0.95 in the turn in the middle.",
                 "")
        self.table(["rows", "one worker, 2 threads: ms", "two workers, 1 thread each: ms", "sum", "of each turn"], rows)

    def torch_linear(self):
        if not os.path.exists(self.torch):
            self.say("No PyTorch here: `python3 -m venv BUILD/torch-venv && BUILD/torch-venv/bin/pip install torch`, then again.")
            return
        out, _ = self.run(self.torch, os.path.join(HERE, "torch_linear.py"), "--layer-bench", self.program("benches/layer_bench"),
                          "--hidden", self.shape["hidden"], "--inter", self.shape["inter"], "--rounds", 2)
        answer = json.loads(out)
        self.say(f"PyTorch {answer['torch']} (it says {answer['torch_cpu']}), bf16 `linear`, {answer['threads']} threads; ours on path "
                 f"{answer['code_path']}. Best call in us, PyTorch / ours; ratio above 1: ours is faster.", "")
        parts = list(next(iter(answer["rows"].values())))
        for n, t in answer["rows"].items():
            self.goal(f"PyTorch's time over ours, linear, {n} rows", t["sum"]["ratio"], 1)
        self.table(["rows"] + parts, [[n] + [f"{t[p]['torch_us']:.0f} / {t[p]['ours_us']:.0f} = {t[p]['ratio']:.2f}" for p in parts]
                                      for n, t in answer["rows"].items()])

    # ---- the daemon ----

    def runs_table(self, report):
        self.table(["open", "n", "failed", "images/min", "of one", "tokens/s", "first row s", "image s p50 / p95 / p99", "rows a read",
                    "B a hop", "U", "U active", "limit images/min", "of it", "as given"],
                   [[r["load"]["concurrency"], r["requests"], r["failed"], f"{r['images_per_min']:.1f}", f"{r['times_first']:.1f}",
                     f"{r['tokens_per_s']:.0f}", f"{r['first_row_s']['p50']:.2f}",
                     " / ".join(f"{r['image_s'][p]:.2f}" for p in ("p50", "p95", "p99")), f"{r['rows_per_read']:.1f}",
                     f"{r['hop_bytes']:.0f}", f"{r['busy_share']:.3f}", f"{r['busy_share_active']:.3f}",
                     f"{r['images_per_min_limit']:.0f}", f"{r['of_limit']:.2f}", f"{r['of_mean_limit']:.2f}"] for r in report["runs"]])

    def concurrency(self, stages, chart=None):
        more = ["--stages", stages, "--threads", 2 // stages, "--concurrency", "1,3" if self.quick else LEVELS]
        report, _ = self.bench(*more, *(["--chart", chart] if chart else []))
        self.reports[stages] = report
        limit = report["limits"][-1]
        self.say(f"`mgpt bench --local bench-model --size {self.size} --turns {self.turns()} {' '.join(map(str, more))}`, guided (two rows a picture), pixels "
                 f"included. Limits of this run: {limits_text(limit)}. The limit "
                 "in images/min allows one read of the weights a token for all open requests. As given: the share of the limit by what the machine gave in "
                 "the mean.", "")
        self.runs_table(report)
        name, runs = f"{stages} x {2 // stages} threads", report["runs"]
        most = [max(r["images_per_min"] for r in runs[:i + 1]) for i in range(len(runs))]
        for run in runs[-2:]:
            self.goal(f"{name}: {run['load']['concurrency']} open, share of the limit", run["of_limit"], 0.7)
        self.goal(f"{name}: images/min at the worst against the best with fewer open", min(r["images_per_min"] / m for r, m in zip(runs, most)), 0.97)
        for run in runs[-2:] if stages == 2 else []:
            self.goal(f"{name}: U, {run['load']['concurrency']} open", run["busy_share"], 0.95)
        shares = [" / ".join(f"{s['busy_share']:.3f}" for s in r["stages"]) for r in report["runs"]]
        self.say("", "Busy share by stage: " + "; ".join(f"{r['load']['concurrency']} open {s}" for r, s in zip(report["runs"], shares)) + ".")

    def simulation(self):
        """A burst on two real stages, then the simulator with the step times that were measured in it."""
        n = 4 if self.quick else TOGETHER
        report, log = self.bench("--stages", 2, "--threads", 1, "--concurrency", n, "--requests", n, "--warm", WARM, "--no-pixels",
                                 env={"MGPT_LOG": "debug"})
        real = report["runs"][0]
        lines = step_times(log)
        closed, _ = self.bench("--stages", 2, "--threads", 1, "--concurrency", "4" if self.quick else f"{TOGETHER},{2 * TOGETHER}", "--no-pixels")
        template = self.template_tokens()
        own = max(1, round(real["prompt_tokens"]) - template - OPENING_TOKENS)
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            file.write("".join(lines))
            file.flush()
            out, _ = self.run(self.program("tests/mgpt-sim"), "--stages", 2, "--measured", file.name, "--arrivals", "burst", "--requests", n,
                              "--warm-requests", WARM, "--mix", f"{self.size}:1", "--template", template, "--prompt", own, "--json")
        sim = json.loads(out)
        self.say(f"{n} pictures of {self.size} at once on 2 stages of 1 thread, tokens only; `mgpt-sim --measured` with the {len(lines)} step "
                 "times of that run. The goal is 10 %, and U >= 0.95.", "")
        self.goal("simulated images/min against measured: difference", abs(sim["images_per_min"] / real["images_per_min"] - 1), 0.1, least=False)
        self.goal(f"2 x 1 threads: U, {n} at once, tokens only", real["busy_share"], 0.95)
        for run in closed["runs"]:
            self.goal(f"2 x 1 threads: U, {run['load']['concurrency']} open, tokens only", run["busy_share"], 0.95)
            self.goal(f"2 x 1 threads: {run['load']['concurrency']} open, tokens only, share of the limit", run["of_limit"], 0.7)
        rows = []
        for name, ours, theirs in (("images/min", real["images_per_min"], sim["images_per_min"]), ("U", real["busy_share"], sim["busy_share"]),
                                   ("rows a read", real["rows_per_read"], sim["rows_per_read"]),
                                   ("image s p50", real["image_s"]["p50"], sim["latency_s"]["p50"])):
            rows.append([name, f"{ours:.3f}", f"{theirs:.3f}", f"{100 * (theirs / ours - 1):+.1f} %"])
        self.table(["", "measured", "simulated", "difference"], rows)
        self.say("", "The same load without an end, tokens only:", "")
        self.runs_table(closed)

    def simulated_pipelines(self):
        rows, worst = [], {}
        for stages in (2, 4, 8, 16, 32, 64):
            for name, mix in (("512x512", "512x512:1"), ("512/768/1024", "512x512:1,768x768:1,1024x1024:1")):
                if self.quick and stages > 4:
                    continue
                out, _ = self.run(self.program("tests/mgpt-sim"), "--stages", stages, "--arrivals", "closed", "--concurrency", 16 * stages,
                                  "--mix", mix, "--warm", 60, "--seconds", 60, "--json")
                r = json.loads(out)
                worst[name] = min(r["busy_share"], worst.get(name, 1))
                rows.append([stages, name, 16 * stages, f"{r['busy_share']:.3f}", f"{r['rows_per_read']:.1f}", f"{r['tokens_per_s']:.0f}"])
        for (name, share), wanted in zip(worst.items(), (0.95, 0.9)):
            self.goal(f"simulated U, least of 2 to 64 stages, {name}", share, wanted)
        self.say("`mgpt-sim --arrivals closed`: equal stages, 16 requests a stage. Goals: 0.95, with mixed sizes 0.9.", "")
        self.table(["stages", "sizes", "requests open", "U", "rows a read", "tokens/s"], rows)

    def scheduler(self):
        out, _ = self.run(self.program("benches/scheduler_bench"), 64, 2)
        us = float(out.split("\n")[1].split()[3])
        steps, _ = self.layer_bench("64", 2, DEMO["layers"], shape=DEMO)
        step_us = steps[64]["ms"] * 1000
        self.goal("scheduler's CPU time of a step of 64 rows of the demo model", us / step_us, 0.02, least=False)
        self.say(f"A plan of 64 rows takes {us:.2f} us of CPU, forming and answer included (`scheduler_bench 64 2`). A step of 64 rows through the "
                 f"layers of the demo model (hidden {DEMO['hidden']}, {DEMO['layers']} layers, without its head) takes {step_us:.0f} us with 2 threads: "
                 f"{100 * us / step_us:.2f} %. The goal is below 2 %.")

    # ---- the report ----

    def write(self, started):
        report = next(iter(self.reports.values()), None)
        head = ["# Results", "", "Written by `./run bench` (tests/bench/bench.py). Numbers of one run on one machine: compare only within it.", ""]
        if report:
            machine = report["machine"]
            head += [f"- machine: {machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, "
                     f"code path {machine['code_path']}",
                     "- limits: " + "; ".join(f"{limit['threads']} threads {limits_text(limit)}" for limit in report["limits"])
                     + ". The mean tells of guests on the same cores, which nothing else here does.",
                     f"- model: random weights, {', '.join(f'{k} {v}' for k, v in self.shape.items())}, bf16",
                     f"- commit: {report['commit']}"]
        after = busy_share()
        head += [f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; took {time.monotonic() - started:.0f} s; CPUs busy with other "
                 f"work: {100 * self.busy_before:.0f} % at the start, {100 * after:.0f} % at the end"]
        if max(self.busy_before, after) > BUSY_SHARE:
            head += ["- **The machine was busy with other work: these numbers are lower than what it can do.**"]
        if self.failures:
            head += ["- not measured: " + ", ".join(self.failures)]
        details, self.lines = self.lines, []
        self.say("", "## Summary", "")
        self.table(["", "measured", "goal", "met"], self.goals)
        with open(os.path.join(self.out, "RESULTS.md"), "w") as file:
            file.write("\n".join(head + self.lines + details) + "\n")

    def main(self):
        started = time.monotonic()
        self.busy_before = busy_share()
        self.make_model()
        os.makedirs(self.out, exist_ok=True)
        chart = os.path.join(self.out, "concurrency.svg")
        self.section("A decode step beside the machine's limit", self.decode_steps)
        self.section("Two stages of one thread each", self.two_stages)
        self.section("PyTorch's linear at the same shapes", self.torch_linear)
        self.section("Images a minute against concurrency, two stages", lambda: self.concurrency(2, chart))
        self.say("", "![images/min and times against concurrency](concurrency.svg)")
        self.section("The same with one stage of two threads", lambda: self.concurrency(1))
        self.section("The simulation's prediction of a real run", self.simulation)
        self.section("Simulated pipelines of 2 to 64 stages", self.simulated_pipelines)
        self.section("The scheduler's share", self.scheduler)
        self.write(started)
        print(os.path.join(self.out, "RESULTS.md"))
        return 1 if self.failures else 0


def busy_share():
    """Share of the CPUs' time that goes to others, over a short while in which we do nothing; what the host takes away counts too."""
    def sample():
        with open("/proc/stat") as file:
            ticks = [int(n) for n in file.readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # idle, and waiting for disks

    total, idle = sample()
    time.sleep(LOOK_S)
    total_after, idle_after = sample()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def limits_text(limit):
    best, mean = ((limit[f"read_{kind}bytes_s"] / 1e9, limit[f"dense_{kind}flop_s"] / 1e9) for kind in ("", "mean_"))
    return f"{best[0]:.1f} GB/s read, {best[1]:.0f} GFLOP/s dense bf16 (in the mean {mean[0]:.1f}, {mean[1]:.0f})"


def parse_layer_bench(text):
    found = {}
    for line in text.splitlines():
        match = re.match(r"rows +(\d+): ([0-9.]+) ms \(best ([0-9.]+)\), limit ([0-9.]+) ms .*limit/time ([0-9.]+) \(best ([0-9.]+), as given ([0-9.]+)\); "
                         r"([0-9.]+) GB/s of ([0-9.]+), ([0-9.]+) GFLOP/s of ([0-9.]+)", line)
        if match:
            v = [float(group) for group in match.groups()]
            found[int(v[0])] = {"ms": v[1], "best_ms": v[2], "limit_ms": v[3], "share": v[4], "best_share": v[5],
                                "given_share": v[6], "bandwidth": f"{v[7]:.1f} of {v[8]:.1f}", "products": f"{v[9]:.0f} of {v[10]:.0f}"}
    if not found:
        raise ValueError(f"layer_bench said: {text[:200]}")
    return found


def step_times(log):
    """Lines STAGE,TOKENS,POSITIONS,US for mgpt-sim out of the engine's debug lines."""
    plans = {number: (tokens, positions) for number, tokens, positions in
             re.findall(r"plan sent pipeline=0 number=(\d+) rows=\d+ tokens=(\d+) positions=(\d+)", log)}
    return [f"{stage},{plans[number][0]},{plans[number][1]},{us}\n" for number, stage, us in
            re.findall(r"plan done pipeline=0 number=(\d+) stage=(\d+) busy_us=(\d+)", log) if number in plans and plans[number][0] != "0"]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default=HERE)
    parser.add_argument("--torch", default=os.environ.get("TORCH_PYTHON"))
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception ends the running program too
    sys.exit(Bench(read_options()).main())
