"""Goal: tests/gpu/report.sh runs through, says what it measured and notices what fails; here on the simulated device."""
import os
import subprocess
import tempfile
import unittest

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
            with open(out) as file:
                return done.returncode, file.read()

    def test_all_steps(self):
        code, text = self.report()
        self.assertEqual(code, 0, text)
        for words in ("no time here means anything", "steps replayed as graphs", "2 rows: ", "2 stages: ", "left ",
                      "images/min", "0 of the checks failed"):
            self.assertIn(words, text)
        self.assertNotIn("FAILED", text)
        self.assertNotIn("not run (out of time)", text)

    def test_a_device_that_is_refused(self):
        code, text = self.report(SIMGPU_CUBLASLT="all-vary")
        self.assertEqual(code, 1)
        self.assertIn("FAILED", text)
        self.assertIn("the same bits", text)

    def test_wrong_use(self):
        done = subprocess.run([SCRIPT, "--nonsense"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage", done.stdout)


if __name__ == "__main__":
    unittest.main()
