"""Runs the checks and timings of a machine with a CUDA device and writes them down; report.sh builds and calls it.

usage: report.py BUILD [--sim] [--layers N] [--seconds N] [--out FILE] [--started UNIX_S]
Every line of the report is what a command printed or a number made of it; the commands stand beside them.
"""
import argparse
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Peak bytes a second by the maker's data sheet, what ACCELERATION's limits are made of; others: measured copies alone.
NOMINAL = {"H200": 4.8e12, "H100 80GB HBM3": 3.35e12, "A100-SXM4-80GB": 2.04e12, "A100-SXM4-40GB": 1.555e12}
ITEM_BYTES = 2  # bf16


class Shape:
    """A model's shape, and what a step has to read."""

    def __init__(self, text, hidden, inter, layers, heads, kv_heads, size, context):
        self.text, self.hidden, self.inter, self.layers = text, hidden, inter, layers
        self.heads, self.kv_heads, self.size, self.context = heads, kv_heads, size, context

    def step_bytes(self, rows):
        """Weights of the layers and of the head for picture codes once, keys and values of `context` for each row."""
        head_dim = self.hidden // self.heads
        layer = (2 * self.heads + 2 * self.kv_heads) * head_dim * self.hidden + 3 * self.hidden * self.inter
        keys = 2 * self.kv_heads * head_dim * self.context
        return ITEM_BYTES * (self.layers * (layer + rows * keys) + 8192 * self.hidden)

    def block_bytes(self):
        return ITEM_BYTES * 64 * 2 * self.layers * self.kv_heads * (self.hidden // self.heads)


class Report:
    def __init__(self, options):
        self.options = options
        self.bin = os.path.join(options.build, "bin")
        self.lines, self.n_failed = [], 0
        self.end = options.started + options.seconds

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def command(self, *words):
        return " ".join(os.path.relpath(w, ROOT) if os.path.isabs(w) and w.startswith(ROOT) else w for w in words)

    def run(self, *words, limit_s=300, **environment):
        """(exit code or None where there was no time, stdout, stderr)."""
        words = [str(w) for w in words]
        left = self.end - time.time()
        if left < 5:
            return None, "", "out of time"
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=min(limit_s, left), cwd=ROOT,
                                  env={**os.environ, **environment})
        except subprocess.TimeoutExpired:
            return (None, "", "out of time") if left <= limit_s else (124, "", f"ended after {limit_s} s")
        return done.returncode, done.stdout, done.stderr

    def check(self, what, *words, **more):
        """One line: passed, failed with the end of what it said, or not run."""
        started = time.time()
        code, out, err = self.run(*words, **more)
        word = "not run (out of time)" if code is None else "passed" if code == 0 else "FAILED"
        if code == 0 and re.search(r"skipped: no device", out):
            word, code = "FAILED: skipped, it found no device", 1
        self.n_failed += code not in (0, None)
        self.say(f"- {what}: {word} ({time.time() - started:.0f} s) `{self.command(*map(str, words))}`")
        if code not in (0, None):
            for line in (out + err).splitlines()[-12:]:
                self.say(f"      {line}")
        return code == 0

    def answer(self, what, *words, **more):
        """The JSON that a command prints, or None with a line."""
        code, out, err = self.run(*words, **more)
        if code == 0:
            return json.loads(out)
        self.n_failed += code is not None
        self.say(f"- {what}: {'not run (out of time)' if code is None else 'FAILED'} `{self.command(*map(str, words))}`")
        for line in err.splitlines()[-4:] if code is not None else []:
            self.say(f"      {line}")
        return None


def text_of(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def device_name(report):
    if report.options.sim:
        return "simulated device"
    return text_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()[0]


def facts(report):
    report.say("# What this tree does on a CUDA device")
    report.say()
    if report.options.sim:
        report.say("**On the simulated device: no time here means anything; the run shows that the script works.**")
        report.say()
    report.say(f"- device: {device_name(report)}")
    if not report.options.sim:
        report.say("- " + text_of("nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader").splitlines()[0])
        report.say("- nvcc: " + (text_of("nvcc", "--version").splitlines() or ["?"])[-1])
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    report.say(f"- host: {cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}")
    dirty = " with changes" if text_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    report.say(f"- commit: {text_of('git', 'rev-parse', '--short', 'HEAD') or '?'}{dirty}")
    report.say(f"- date: {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC")
    report.say(f"- command: `tests/gpu/report.sh {' '.join(sys.argv[2:])}`".replace(" `", "`"))


def unit_tests(report):
    report.say("\n## Kernels and stages against their twins, row-invariance\n")
    if report.options.sim:
        report.say("- not run here: ./run test does so on the simulated device")
        return
    for program in sorted(glob.glob(os.path.join(report.options.build, "tests", "*device*_test"))):
        report.check(os.path.basename(program), program)


def sanitizer(report):
    report.say("\n## compute-sanitizer\n")
    tool = shutil.which("compute-sanitizer")
    if report.options.sim or not tool:
        report.say("- not run: " + ("the simulated device looks for the same faults" if report.options.sim else "not installed"))
        return
    for check in ("memcheck", "racecheck", "synccheck"):
        report.check(check, tool, "--tool", check, "--error-exitcode", "1",
                     os.path.join(report.options.build, "tests", "device_test"), limit_s=150)


def layers(report, shape):
    report.say("\n## Layers alone (no daemon, no head), bf16\n")
    report.say("limit = bytes of weights, keys and values / bandwidth of copies inside the device, measured in the run.\n")
    bench = os.path.join(report.options.build, "benches", "layer_bench")
    n = min(shape.layers, 8)
    words = [bench, "--device", "cuda", "--layers", n, "--hidden", shape.hidden, "--inter", shape.inter, "--heads",
             shape.heads, "--kv-heads", shape.kv_heads, "--context", shape.context]
    rows = "2" if report.options.sim else "2,8,64"
    steps = 1 if report.options.sim else 50
    for title, more, environment in ((f"{n} layers, steps replayed as graphs", [], {}),
                                     ("the same, launched one by one", [], {"MGPT_CUDA_GRAPHS": "off"}),
                                     ("each operation alone", ["--parts"], {})):
        code, out, err = report.run(*words, "--rows", rows, "--steps", steps, *more, **environment)
        prefix = "".join(f"{k}={v} " for k, v in environment.items())
        report.say(f"{title}: `{prefix}{report.command(*map(str, words + ['--rows', rows, '--steps', steps] + more))}`")
        report.say("```")
        for line in (out if code == 0 else f"failed: {err}").strip().splitlines():
            report.say(line)
        report.say("```")
        report.n_failed += code not in (0, None)


def make_checkpoint(report, shape):
    folder = os.path.join(os.path.abspath(report.options.build), f"checkpoint-{shape.layers}-{shape.hidden}")
    if os.path.exists(os.path.join(folder, "config.json")):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    code, _, err = report.run(os.path.join(report.bin, "mgpt"), "make-checkpoint", "--shape", shape.text, "--layers",
                              shape.layers, "--seed", 1, "--out", folder, limit_s=240)
    if code == 0:
        return folder
    report.n_failed += code is not None
    report.say(f"no checkpoint: {err.strip()[-300:]}")
    return None


def generate(report, folder, size, stages):
    return report.answer(f"{size}, {stages} stages", os.path.join(report.bin, "mgpt"), "inspect", "generate", "--model", folder,
                         "--prompt", "a lighthouse", "--size", size, "--seed", 1, "--device", "cuda:0", "--stages", stages)


def bandwidth_lines(report, shape, rows, step_s, name):
    nominal = next((b for key, b in NOMINAL.items() if key in name), None)
    limit = f"{shape.step_bytes(rows) / nominal * 1e3:.2f} ms at the data sheet's {nominal * 1e-12:.2f} TB/s" if nominal else "no data sheet at hand"
    share = f", {shape.step_bytes(rows) / nominal / step_s:.2f} of the bandwidth limit" if nominal else ""
    report.say(f"- {rows} rows: {step_s * 1e3:.2f} ms a step in kernels (limit: {limit}){share}; goal 0.75")


def one_request(report, shape, folder, name):
    report.say("\n## One request: two rows\n")
    got = generate(report, folder, shape.size, 1)
    if got:
        stage = got["stages"][0]
        bandwidth_lines(report, shape, 2, stage["busy_s"] / got["passes"], name)
        report.say(f"- {got['passes']} passes; kernel time includes the head, the draws and waiting for them")


def cut_in_stages(report, folder):
    report.say("\n## Stages on one device\n")
    size = "32x32" if report.options.sim else "256x256"
    one = None
    for n in (1, 2) if report.options.sim else (1, 2, 4):
        got = generate(report, folder, size, n)
        if not got:
            continue
        busy_s = sum(stage["busy_s"] for stage in got["stages"])
        one = one or (busy_s, got["ids"])
        same = "the tokens of one stage" if got["ids"] == one[1] else "OTHER TOKENS than one stage"
        report.n_failed += got["ids"] != one[1]
        report.say(f"- {n} stages: {busy_s:.3f} s of kernels together, {busy_s / one[0]:.3f} of one stage's (goal 1.1 at 2); {same}")
        for stage in got["stages"]:
            report.say("    - {units}: weights {bytes:,}, keys and values {kv_bytes:,}, rows {activation_bytes:,}, workspace "
                       "{workspace_bytes:,}, held on the device {device_bytes:,}, left {device_free_bytes:,} of "
                       "{device_total_bytes:,} bytes".format(**stage))


def many_requests(report, shape, folder):
    report.say("\n## Many requests\n")
    positions = shape.context + 100
    blocks = 2 * (positions + 63) // 64
    n = 2 if report.options.sim else 32
    if not report.options.sim:
        free = 1e6 * float(text_of("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits").splitlines()[0])
        n = max(1, min(n, int((0.95 * free - shape.step_bytes(0) - 3e9) / (blocks * shape.block_bytes()))))
    got = report.answer(f"{n} requests", os.path.join(report.bin, "mgpt"), "bench", "--local", folder, "--no-pixels", "--device",
                        "cuda:0", "--size", shape.size, "--concurrency", n, "--requests", n, "--warm", 0, "--kv-blocks", n * blocks,
                        "--json")
    if got:
        run = got["runs"][0]
        report.say(f"- {n} requests at {shape.size}: {run['images_per_min']:.1f} images/min, {run['tokens_per_s']:.0f} tokens/s, "
                   f"busy share {run['busy_share']:.2f}, {run['failed']} failed (goal 50 images/min on an H200, limit 72)")
        report.n_failed += run["failed"] > 0


def goldens(report):
    report.say("\n## The public reference's answers, and bits that do not change with the cut\n")
    if report.options.sim:
        report.say("- not run here: ./run test does so on the simulated device")
        return
    for stages in (1, 2, 4):
        report.check(f"goldens, {stages} stages", sys.executable, "-m", "unittest", "-q", "tests/test_goldens.py",
                     PYTHONPATH=os.path.join(ROOT, "tests"), MGPT_BUILD=os.path.abspath(report.options.build),
                     MGPT_TEST_DEVICE="cuda:0", MGPT_TEST_STAGES=str(stages))
    report.check("invariance", sys.executable, "-m", "unittest", "-q", "tests/test_invariance.py",
                 PYTHONPATH=os.path.join(ROOT, "tests"), MGPT_BUILD=os.path.abspath(report.options.build), MGPT_TEST_DEVICE="cuda:0")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--sim", action="store_true")
    parser.add_argument("--layers", type=int, default=32, help="of the 7B shape")
    parser.add_argument("--seconds", type=int, default=540)
    parser.add_argument("--out", default=os.path.join(HERE, "RESULTS.md"))
    parser.add_argument("--started", type=float, default=time.time(), help="when the build began; counts towards --seconds")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    report = Report(options)
    if options.sim:
        shape = Shape("hidden=64,inter=176,layers=2,heads=4,kv_heads=4,vocab=65536", 64, 176, 2, 4, 4, "32x32", 70)
    else:
        shape = Shape("7b", 4096, 11008, options.layers, 32, 32, "768x768", 2419)
    facts(report)
    name = device_name(report)
    unit_tests(report)
    layers(report, shape)
    folder = make_checkpoint(report, shape)
    if folder:
        report.say(f"\nThe figures below: random weights, {shape.layers} layers of the shape {shape.text}, bf16.")
        one_request(report, shape, folder, name)
        cut_in_stages(report, folder)
        many_requests(report, shape, folder)
    goldens(report)
    sanitizer(report)
    report.say(f"\n{report.n_failed} of the checks failed.")
    with open(options.out, "w") as file:
        file.write("\n".join(report.lines) + "\n")
    return 1 if report.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
