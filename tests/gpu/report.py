"""Runs the checks and timings of a machine with a CUDA device and writes them down; report.sh builds and calls it.

usage: report.py BUILD [--sim] [--layers N] [--seconds N] [--work DIR] [--out FILE] [--started UNIX_S]
Every line of the report is what a command printed or a number made of it; the commands stand beside them. All they printed is kept in
FILE's name with .log. The report is written after each section, so that whatever ends it leaves what was there.
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
import traceback

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

    def file_bytes(self):
        """With both tables of a vocabulary of 65,536."""
        return self.step_bytes(0) + ITEM_BYTES * (2 * 65536 - 8192) * self.hidden

    def block_bytes(self):
        return ITEM_BYTES * 64 * 2 * self.layers * self.kv_heads * (self.hidden // self.heads)


class Report:
    def __init__(self, options):
        self.options = options
        self.bin = os.path.join(options.build, "bin")
        self.lines, self.n_failed, self.n_not_run = [], 0, 0
        self.end = options.started + options.seconds
        name, _ = os.path.splitext(options.out)
        self.log = open(os.devnull if options.out == os.devnull else name + ".log", "w")

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def not_run(self, what, why):
        self.n_not_run += 1
        self.say(f"- {what}: **not run** ({why})")

    def write(self):
        with open(self.options.out, "w") as file:
            file.write("\n".join(self.lines) + "\n")

    def command(self, *words):
        return " ".join(os.path.relpath(w, ROOT) if os.path.isabs(w) and w.startswith(ROOT) else w for w in words)

    def run(self, *words, limit_s=900, **environment):
        """(exit code or None where there was no time, stdout, stderr)."""
        words = [str(w) for w in words]
        left = self.end - time.time()
        if left < 5:
            return None, "", "out of time"
        started = time.time()
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=min(limit_s, left), cwd=ROOT,
                                  env={**os.environ, **environment})
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            out, err = ((text or b"").decode(errors="replace") for text in (late.stdout, late.stderr))
            code, err = (None if left <= limit_s else 124), err + f"\nended after {min(limit_s, left):.0f} s"
        except OSError as missing:
            code, out, err = 127, "", str(missing)
        prefix = "".join(f"{key}={value} " for key, value in environment.items())
        self.log.write(f"$ {prefix}{' '.join(words)}\n{out}{err}\n[{how_it_ended(code)}, {time.time() - started:.1f} s]\n\n")
        self.log.flush()
        return code, out, err

    def check(self, what, *words, **more):
        """One line: passed, failed with the end of what it said, or not run."""
        started = time.time()
        code, out, err = self.run(*words, **more)
        if code is None:
            return self.not_run(what, "out of time: --seconds")
        word = "passed" if code == 0 else f"FAILED, {how_it_ended(code)}"
        if code == 0 and re.search(r"skipped: no device", out):
            word, code = "FAILED: skipped, it found no device", 1
        self.n_failed += code != 0
        self.say(f"- {what}: {word} ({time.time() - started:.0f} s) `{self.command(*map(str, words))}`")
        for line in (out + err).splitlines()[-12:] if code else []:
            self.say(f"      {line}")

    def answer(self, what, *words, **more):
        """The JSON that a command prints, or None with a line."""
        code, out, err = self.run(*words, **more)
        if code == 0:
            return json.loads(out)
        if code is None:
            self.not_run(what, "out of time: --seconds")
            return None
        self.n_failed += 1
        self.say(f"- {what}: FAILED, {how_it_ended(code)} `{self.command(*map(str, words))}`")
        for line in err.splitlines()[-4:]:
            self.say(f"      {line}")
        return None

    def goal(self, reached):
        return "reached" if reached else "NOT reached"


def how_it_ended(code):
    if code is None:
        return "out of time"
    return f"signal {-code}" if code < 0 else f"exit {code}"


def text_of(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def first_line(text):
    return (text.splitlines() or ["?"])[0]


def device_name(report):
    if report.options.sim:
        return "simulated device"
    return first_line(text_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"))


def facts(report):
    report.say("# What this tree does on a CUDA device")
    report.say()
    if report.options.sim:
        report.say("**On the simulated device: no time here means anything; the run shows that the script works.**")
        report.say()
    report.say(f"- device: {device_name(report)}")
    if not report.options.sim:
        report.say("- driver, memory: " + first_line(text_of("nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader")))
        busy = text_of("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader")
        if busy:
            report.say(f"- **other programs are on the device, times mean little**: {'; '.join(busy.splitlines())}")
        report.say("- nvcc: " + (text_of("nvcc", "--version").splitlines() or ["?"])[-1])
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    report.say(f"- host: {cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}")
    dirty = " with changes" if text_of("git", "status", "--porcelain", "--untracked-files=no") else ""
    report.say(f"- commit: {text_of('git', 'rev-parse', '--short', 'HEAD') or '?'}{dirty}")
    report.say(f"- date: {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC")
    report.say(f"- command: `{' '.join(['tests/gpu/report.sh', *sys.argv[2:]])}`")
    code, out, err = report.run(os.path.join(report.bin, "mgpt"), "inspect", "device", "--device", "cuda:0")
    report.n_failed += code != 0
    report.say(f"- mgpt inspect device: `{(out or err).strip()}`")


def unit_tests(report):
    report.say("\n## Kernels and stages against their twins, row-invariance\n")
    if report.options.sim:
        report.say("- not run here: ./run test does so on the simulated device")
        return
    for program in sorted(glob.glob(os.path.join(report.options.build, "tests", "*device*_test"))):
        report.check(os.path.basename(program), program)


def sanitizer(report):
    report.say("\n## compute-sanitizer\n")
    nvcc = os.path.dirname(os.path.realpath(shutil.which("nvcc") or ""))
    tool = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ["PATH"], nvcc, "/usr/local/cuda/bin"]))
    if report.options.sim:
        report.say("- not run here: the simulated device looks for the same faults")
    elif not tool:
        report.not_run("memcheck, racecheck, synccheck", "no compute-sanitizer: it is a part of the CUDA toolkit (cuda-sanitizer)")
    else:
        for check, programs in (("memcheck", ("device_test", "device_sample_test", "device_codec_test", "codec_device_test",
                                              "stage_device_test")), ("racecheck", ("device_test",)), ("synccheck", ("device_test",))):
            for program in programs:
                report.check(f"{check}, {program}", tool, "--tool", check, "--error-exitcode", "1",
                             os.path.join(report.options.build, "tests", program))


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
    work = os.path.abspath(report.options.work or report.options.build)
    folder = os.path.join(work, f"checkpoint-{shape.layers}-{shape.hidden}")
    if os.path.exists(os.path.join(folder, "config.json")):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(work, exist_ok=True)
    needed, free = shape.file_bytes() * 1.05, shutil.disk_usage(work).free
    if free < needed:
        report.not_run("everything with the 7B shape", f"{needed / 1e9:.1f} GB are needed in {work}, {free / 1e9:.1f} are free: --work DIR "
                       "names another folder, --layers N a smaller model")
        return None
    code, _, err = report.run(os.path.join(report.bin, "mgpt"), "make-checkpoint", "--shape", shape.text, "--layers",
                              shape.layers, "--seed", 1, "--out", folder, limit_s=1800)
    if code == 0:
        return folder
    shutil.rmtree(folder, ignore_errors=True) # half of it is of no use to the next run
    if code is None:
        report.not_run("everything with the 7B shape", "no time to make the checkpoint: --seconds")
    else:
        report.n_failed += 1
        report.say(f"- no checkpoint: FAILED, {how_it_ended(code)}: {err.strip()[-300:]}")
    return None


def generate(report, folder, size, stages):
    return report.answer(f"{size}, {stages} stages", os.path.join(report.bin, "mgpt"), "inspect", "generate", "--model", folder,
                         "--prompt", "a lighthouse", "--size", size, "--seed", 1, "--device", "cuda:0", "--stages", stages)


def bandwidth_lines(report, shape, rows, step_s, name):
    nominal = next((b for key, b in NOMINAL.items() if key in name), None)
    if not nominal:
        report.say(f"- {rows} rows: {step_s * 1e3:.2f} ms a step in kernels; no data sheet of this device at hand (NOMINAL in report.py)")
        return
    limit_s = shape.step_bytes(rows) / nominal
    report.say(f"- {rows} rows: {step_s * 1e3:.2f} ms a step in kernels, limit {limit_s * 1e3:.2f} ms at the data sheet's "
               f"{nominal * 1e-12:.2f} TB/s: {limit_s / step_s:.2f} of the bandwidth limit (goal 0.75: {report.goal(limit_s / step_s >= 0.75)})")


def one_request(report, shape, folder, name):
    report.say("\n## One request: two rows\n")
    got = generate(report, folder, shape.size, 1)
    if got:
        stage = got["stages"][0]
        bandwidth_lines(report, shape, 2, stage["busy_s"] / got["passes"], name)
        report.say(f"- {got['passes']} passes, {got['seconds']:.1f} s; kernel time includes the head, the draws and waiting for them")


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
        same = "the tokens of one stage" if got["ids"] == one[1] else "FAILED: OTHER TOKENS than one stage"
        report.n_failed += got["ids"] != one[1]
        links = ", linked by " + "/".join(sorted({stage["link"] for stage in got["stages"]} - {""})) if n > 1 else ""
        goal = f" (goal 1.1: {report.goal(busy_s / one[0] <= 1.1)})" if n == 2 else ""
        report.say(f"- {n} stages{links}: {busy_s:.3f} s of kernels together, {busy_s / one[0]:.3f} of one stage's{goal}; {same}")
        for stage in got["stages"]:
            report.say("    - {units}: weights {bytes:,}, keys and values {kv_bytes:,}, rows {activation_bytes:,}, workspace "
                       "{workspace_bytes:,}, held on the device {device_bytes:,}, for recordings {recording_bytes:,} more, left "
                       "{device_free_bytes:,} of {device_total_bytes:,} bytes".format(**stage))


def bench(report, what, folder, *more, **environment):
    return report.answer(what, os.path.join(report.bin, "mgpt"), "bench", "--local", folder, "--no-pixels", "--device", "cuda:0",
                         "--warm", 0, "--json", *more, **environment)


def many_requests(report, shape, folder):
    report.say("\n## Many requests\n")
    positions = shape.context + 100
    blocks = 2 * ((positions + 63) // 64)
    n = 2 if report.options.sim else 32
    if not report.options.sim:
        free = text_of("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
        room = 1e6 * float(first_line(free)) * 0.95 - shape.file_bytes() - 2e9
        n = max(1, min(n, int(room / (blocks * shape.block_bytes()))))
        if n < 32:
            report.say(f"- the device has room for {n} requests at once, 32 were wanted")
    got = bench(report, f"{n} requests", folder, "--size", shape.size, "--concurrency", n, "--requests", n, "--kv-blocks", n * blocks,
                limit_s=1800)
    if got:
        run = got["runs"][0]
        report.say(f"- {n} requests at {shape.size}: {run['images_per_min']:.1f} images/min, {run['tokens_per_s']:.0f} tokens/s, "
                   f"busy share {run['busy_share']:.2f}, {run['failed']} failed (goal 50 images/min on an H200, limit 72: "
                   f"{report.goal(run['images_per_min'] >= 50)})")
        report.n_failed += run["failed"] > 0


def default_blocks(report, folder):
    report.say("\n## The KV cache when nobody says how large\n")
    words = [os.path.join(report.bin, "mgpt"), "bench", "--local", folder, "--no-pixels", "--device", "cuda:0", "--warm", 0, "--json",
             "--size", "32x32", "--concurrency", 1, "--requests", 1]
    code, _, err = report.run(*words, MGPT_LOG="info")
    if code is None:
        report.not_run("the default number of blocks", "out of time: --seconds")
        return
    chosen = re.search(r"kv blocks chosen blocks=(\d+)", err)
    loaded = re.findall(r"loaded stage=.*", err)
    report.n_failed += code != 0 or not chosen
    report.say(f"- {chosen[1] + ' blocks' if chosen and code == 0 else 'FAILED, ' + how_it_ended(code)} `{report.command(*map(str, words))}`")
    for line in loaded or err.splitlines()[-4:]:
        report.say(f"      {line}")


def goldens(report):
    report.say("\n## The public reference's answers, and bits that do not change with the cut\n")
    if report.options.sim:
        report.say("- not run here: ./run test does so on the simulated device")
        return
    try:
        import numpy, PIL  # noqa: what the tests compare with
    except ImportError as missing:
        report.not_run("goldens and invariance", f"{missing}: ./run tools, or pip install -r tests/requirements.txt")
        return
    for stages in (1, 2, 4):
        report.check(f"goldens, {stages} stages", sys.executable, "-m", "unittest", "-q", "tests/test_goldens.py",
                     PYTHONPATH=os.path.join(ROOT, "tests"), MGPT_BUILD=os.path.abspath(report.options.build),
                     MGPT_TEST_DEVICE="cuda:0", MGPT_TEST_STAGES=str(stages))
    report.check("invariance", sys.executable, "-m", "unittest", "-q", "tests/test_invariance.py",
                 PYTHONPATH=os.path.join(ROOT, "tests"), MGPT_BUILD=os.path.abspath(report.options.build), MGPT_TEST_DEVICE="cuda:0")


def measure_model(report, shape, name):
    folder = make_checkpoint(report, shape)
    if not folder:
        return
    report.say(f"\nThe figures below: random weights, {shape.layers} layers of the shape {shape.text}, bf16; {folder} is kept for the next run.")
    one_request(report, shape, folder, name)
    cut_in_stages(report, folder)
    many_requests(report, shape, folder)
    default_blocks(report, folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--sim", action="store_true")
    parser.add_argument("--layers", type=int, default=32, help="of the 7B shape")
    parser.add_argument("--seconds", type=int, default=7200, help="after which nothing more is begun")
    parser.add_argument("--work", help="where the checkpoint is made [BUILD]")
    parser.add_argument("--out", default=os.path.join(HERE, "RESULTS.md"))
    parser.add_argument("--started", type=float, default=time.time(), help="when the build began; counts towards --seconds")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    report = Report(options)
    if options.sim:
        shape = Shape("hidden=64,inter=176,layers=2,heads=4,kv_heads=4,vocab=10240", 64, 176, 2, 4, 4, "32x32", 70)
    else:
        shape = Shape("7b", 4096, 11008, options.layers, 32, 32, "768x768", 2419)
    name = device_name(report)
    for section in (facts, unit_tests, goldens, lambda r: layers(r, shape), lambda r: measure_model(r, shape, name), sanitizer):
        try:
            section(report)
        except Exception:  # the other sections are worth having all the same
            report.n_failed += 1
            report.say("- FAILED in the report itself:")
            for line in traceback.format_exc().splitlines()[-6:]:
                report.say(f"      {line}")
        report.write()
    report.say(f"\n{report.n_failed} of the checks failed, {report.n_not_run} were not run.")
    report.write()
    return 1 if report.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
