"""Goal: a run of tests never ends without a word: whatever ends a file of tests, or the run itself, is named and counts as a failure."""
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import run_all

VICTIM = """import os, signal, time, unittest
class Victim(unittest.TestCase):
    def test_1_passes(self):
        pass
    def test_2_ends(self):
        {end}
    def test_3_is_not_reached(self):
        pass
"""


class RunnerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, end):
        with open(os.path.join(self.folder, "victim.py"), "w") as file:
            file.write(VICTIM.format(end=end))

    def told(self, end):
        """What is said, and the counts, of a file whose second test does `end`."""
        self.write(end)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            counts = run_all.run_told("victim", ["--file", "victim"], "asan/", PYTHONPATH=self.folder)
        return said.getvalue(), counts

    def test_a_whole_file(self):
        said, counts = self.told("pass")
        self.assertEqual(counts, [3, 0, 0])
        self.assertIn("ok     asan/victim.Victim.test_3_is_not_reached", said)

    def test_a_failure_is_counted_once(self):
        said, counts = self.told("self.fail('no')")
        self.assertEqual(counts, [2, 1, 0])
        self.assertNotIn("ended before", said)

    def test_a_killed_file(self):
        said, counts = self.told("os.kill(os.getpid(), signal.SIGKILL)")
        self.assertEqual(counts, [0, 1, 0])
        self.assertIn("FAILED asan/victim ended before its tests did: signal 9 (SIGKILL)", said)

    def test_a_file_that_leaves_in_silence(self):
        for code in (0, 1):
            said, counts = self.told(f"os._exit({code})")
            self.assertEqual(counts, [0, 1, 0])
            self.assertIn(f"FAILED asan/victim ended before its tests did: exit {code}", said)

    def test_a_file_that_is_asked_to_end(self):
        said, counts = self.told("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")
        self.assertEqual(counts, [0, 1, 0])
        self.assertIn("FAILED asan/victim.Victim.test_2_ends: ended by SIGTERM", said)

    def test_a_run_that_is_asked_to_end(self):
        # One long sleep could begin between the signal and Python's look at it, and would be slept to its end.
        self.write("print('begun', flush=True); [time.sleep(0.01) for _ in range(6000)]")
        run = subprocess.Popen([sys.executable, run_all.__file__, "--file", "victim"], stdout=subprocess.PIPE, text=True,
                               env=dict(os.environ, PYTHONPATH=self.folder),
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # nohup passes on that it is ignored
        end = time.monotonic() + 60
        while "begun" not in run.stdout.readline() and time.monotonic() < end:
            pass
        run.send_signal(signal.SIGHUP)
        said, _ = run.communicate(timeout=60)
        self.assertIn("FAILED victim.Victim.test_2_ends: ended by SIGHUP", said)
        self.assertEqual(run.returncode, 128 + signal.SIGHUP)


if __name__ == "__main__":
    unittest.main()
