#!/usr/bin/env python3
"""Runs all tests: the unit test programs of the build, then tests/test_*.py, fast ones first.

usage: run_all.py BUILD [WORD ...]       with words, only tests whose names contain one of them
       run_all.py BUILD --further [BUILD=WORD,WORD ...]   all of BUILD, then of further builds the named ones ("unit": the unit test
                                                          programs), then each fuzz target for some seconds where BUILD/fuzz has them
The last line is 'N passed, N failed' (', N skipped' may follow). Exit 0 when nothing failed and something ran.
Each file of process tests runs in a process of its own (--file NAME), so that whatever ends one is told by another. Two programs or files
run side by side, of whatever build, but for those that compare times. Tests of a further build are named after it: asan/test_x.
"""
import concurrent.futures
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# The order of the process tests: those that end first come first; files not named here come last.
ORDER = ["test_tree", "test_includes", "test_goldens", "test_command_line", "test_memory", "test_invariance"]
ALONE = ["test_pipelining"]  # times of two runs are compared
SIDE_BY_SIDE = 2
FUZZ_SECONDS = 4  # for each target
saying = threading.Lock()


def say(text):
    """Whole lines, whoever else speaks."""
    with saying:
        print(text, flush=True)


def unit_programs(build):
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True,
                             capture_output=True, text=True).stdout
    for test in json.loads(listing)["tests"]:
        limit = next((p["value"] for p in test.get("properties", []) if p["name"] == "TIMEOUT"), 120)
        yield test["name"], test.get("command"), float(limit)  # no command: not built


def run_program(name, command, limit_s, environment):
    """Runs one test program; returns (passed, failed, skipped) counted by cmocka's own lines where it prints them."""
    if not command:
        say(f"FAILED {name}: not built")
        return [0, 1, 0]
    started = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s,
                              env={**os.environ, **environment})
        output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(errors="replace") + f"\nended after {limit_s} s", -signal.SIGKILL
    counts = [sum(int(n) for n in re.findall(rf"\[  {word}  \] (\d+) test\(s\)", output))
              for word in ("PASSED", "FAILED", "SKIPPED")]
    if code == 0 and not any(counts):
        counts[0] = 1
    if code != 0 and not counts[1]:
        counts[1] = 1
    word = "ok    " if code == 0 else "FAILED"
    more = f"\n{output[-6000:]}\n{name}: {how_it_ended(code)}" if code != 0 else ""
    say(f"{word} {name}: {counts[0]} passed, {counts[1]} failed ({time.monotonic() - started:.1f} s){more}")
    return counts


class Result(unittest.TextTestResult):
    """Prints each test with its time, so that a slow one is seen."""
    running = "no test"  # the one that an end from outside hits

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        Result.running = test.id()

    def stopTest(self, test):
        super().stopTest(test)
        Result.running = f"no test, after {test.id()}"

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        print(f"ok     {test.id()} ({time.monotonic() - self.started:.1f} s)", flush=True)


def say_end(number, _):
    """Whoever ends this process from outside is not answered with silence."""
    print(f"FAILED {Result.running}: ended by {signal.Signals(number).name}", flush=True)
    os._exit(128 + number)


def run_file(name):
    """One file's tests, in this process; the last line has their counts, the exit code says that it was reached."""
    suite = unittest.defaultTestLoader.loadTestsFromName(name)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=Result).run(suite)
    bad = len({str(test) for test, _ in result.failures + result.errors}) + len(result.unexpectedSuccesses)
    print(counts_line([max(0, result.testsRun - bad - len(result.skipped)), bad, len(result.skipped)]), flush=True)


def counts_line(totals):
    return f"{totals[0]} passed, {totals[1]} failed" + (f", {totals[2]} skipped" if totals[2] else "")


def how_it_ended(code):
    return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit {code}"


def run_told(what, words, prefix="", **environment):
    """Runs this program with other words and shows what it says, a line for each test at once, its name behind `prefix`, the rest at its end;
    its counts, or a failure in words when it ended without."""
    child = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, errors="replace",
                             env={**os.environ, **environment})
    rest, last = [], ""
    for line in child.stdout:
        line = line.rstrip("\n")
        if re.match(r"ok |FAILED ", line):
            say(line[:7] + prefix + line[7:])
        else:
            rest.append(line)
        last = line
    code = child.wait()
    counts = re.fullmatch(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", last)
    if counts:
        rest.pop()
    if any(rest):
        say("\n".join([f"== {prefix}{what}", *rest]))
    counts = [int(n or 0) for n in counts.groups()] if counts else None
    if counts and code == 0:
        return counts
    say(f"FAILED {prefix}{what} ended before its tests did: {how_it_ended(code)}")
    return add(counts or [0, 0, 0], [0, 1, 0])


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def jobs(build, words, prefix=""):
    """What there is to run of a build, fast ones first, and what has to run alone: functions that return counts."""
    wanted = lambda name: not words or any(word in name for word in words)
    environment = {"MGPT_BUILD": build, "TSAN_OPTIONS": f"suppressions={os.path.join(HERE, 'tsan.supp')}"}  # MGPT_BUILD: read by harness.py
    files = sorted(f[:-3] for f in os.listdir(HERE) if f.startswith("test_") and f.endswith(".py"))
    files = sorted(filter(wanted, files), key=lambda f: ORDER.index(f) if f in ORDER else len(ORDER))
    file_job = lambda name: functools.partial(run_told, name, ["--file", name], prefix, **environment)
    programs = [functools.partial(run_program, prefix + name, command, limit_s, environment)
                for name, command, limit_s in unit_programs(build) if wanted(name) or "unit" in words]
    return programs + [file_job(f) for f in files if f not in ALONE], [file_job(f) for f in files if f in ALONE]


def run(together, alone):
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        counts = list(pool.map(lambda job: job(), together))
    counts += [job() for job in alone]
    return functools.reduce(add, counts, [0, 0, 0])


def run_fuzzers(build):
    folder = os.path.join(build, "fuzz")
    if not os.path.isdir(folder):
        return [0, 0, 0]
    print(f"== each fuzz target for {FUZZ_SECONDS} s", flush=True)
    done = subprocess.run([os.path.join(HERE, "fuzz", "run.sh"), str(FUZZ_SECONDS), folder], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    lines = done.stdout.splitlines()
    failed = sum("FAILED" in line for line in lines)
    return [len(lines) - failed, failed + (done.returncode != 0 and not failed), 0]


def main():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, say_end)
    if sys.argv[1:2] == ["--file"]:
        return run_file(sys.argv[2])
    build, words = os.path.abspath(sys.argv[1]), sys.argv[2:]
    if words[:1] == ["--further"]:
        together, alone = jobs(build, [])
        for further in words[1:]:
            other, _, names = further.partition("=")
            more, more_alone = jobs(os.path.abspath(other), names.split(","), os.path.basename(other) + "/")
            together += more
            alone += more_alone
        totals = add(run(together, alone), run_fuzzers(build))
    else:
        totals = run(*jobs(build, words))
    print(counts_line(totals))
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    sys.exit(main())
