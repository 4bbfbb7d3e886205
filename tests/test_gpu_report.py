"""Goal: tests/gpu/report.sh runs through, says what it measured and notices what fails; here on the simulated device."""
import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import harness

SCRIPT = os.path.join(harness.ROOT, "tests", "gpu", "report.sh")
IS_SIMULATED = os.path.exists(os.path.join(harness.BUILD, "tests", "broken_kernels"))


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class ReportTest(unittest.TestCase):
    def report(self, **environment):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "results.md")
            done = subprocess.run([SCRIPT, "--sim", harness.BUILD, "--out", out], capture_output=True, text=True, timeout=600,
                                  env={**os.environ, **environment})
            with open(out) as file, open(os.path.join(folder, "results.log")) as log:
                self.assertIn("inspect generate", log.read())
                return done.returncode, file.read()

    def test_all_steps(self):
        code, text = self.report()
        self.assertEqual(code, 0, text)
        for words in ("no time here means anything", "steps replayed as graphs", "2 rows: ", "2 stages, linked by nccl: ", "left ",
                      "images/min", " blocks `", "0 of the checks failed, 0 were not run"):
            self.assertIn(words, text)
        self.assertNotIn("FAILED", text)

    def test_a_device_that_is_refused(self):
        code, text = self.report(SIMGPU_CUBLASLT="all-vary")
        self.assertEqual(code, 1)
        self.assertIn("FAILED", text)
        self.assertIn("the same bits", text)

    def a_report(self, folder, **options):
        sys.path.insert(0, os.path.dirname(SCRIPT))
        self.addCleanup(sys.path.remove, os.path.dirname(SCRIPT))
        import report
        values = {"build": harness.BUILD, "sim": False, "work": folder, "out": os.devnull, "started": time.time(), "seconds": 600}
        return report, report.Report(argparse.Namespace(**{**values, **options}))

    def test_too_little_disk(self):
        """A checkpoint of the 7B shape is not begun where it does not fit."""
        with tempfile.TemporaryDirectory() as folder:
            report, page = self.a_report(folder)
            shape = report.Shape("7b", 4096, 11008, 32, 32, 32, "768x768", 2419)
            with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=9e9)), contextlib.redirect_stdout(io.StringIO()):
                self.assertIsNone(report.make_checkpoint(page, shape))
            self.assertEqual((page.n_failed, page.n_not_run), (0, 1))
            self.assertIn("14.7 GB are needed", page.lines[-1])
            self.assertIn("9.0 are free: --work DIR", page.lines[-1])
            self.assertEqual(os.listdir(folder), [])

    def test_no_time_left(self):
        with tempfile.TemporaryDirectory() as folder:
            _, page = self.a_report(folder, seconds=0)
            with contextlib.redirect_stdout(io.StringIO()):
                page.check("a step", "true")
            self.assertEqual((page.n_failed, page.n_not_run), (0, 1))
            self.assertIn("a step: **not run** (out of time", page.lines[-1])

    def test_a_program_that_dies_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            _, page = self.a_report(folder)
            with contextlib.redirect_stdout(io.StringIO()):
                page.check("a step", "bash", "-c", "echo last words; kill -SEGV $$")
            self.assertEqual(page.n_failed, 1)
            self.assertIn("FAILED, signal 11", page.lines[-2])
            self.assertIn("last words", page.lines[-1])

    def test_no_device(self):
        """Without --sim, on a machine whose nvidia-smi is not there: one line, exit 1."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("dirname", "date", "sed"):
                os.symlink(shutil.which(name), os.path.join(folder, name))
            done = subprocess.run([shutil.which("bash"), SCRIPT], capture_output=True, text=True, timeout=60,
                                  env={**os.environ, "PATH": folder})
            self.assertEqual(done.returncode, 1)
            self.assertIn("install the NVIDIA driver", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_wrong_use(self):
        done = subprocess.run([SCRIPT, "--nonsense"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage", done.stdout)


if __name__ == "__main__":
    unittest.main()
