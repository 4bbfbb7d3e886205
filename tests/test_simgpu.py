"""The CUDA code on the simulated device: faults are seen, kernels agree with their twins, the worker with the goldens.

Runs in builds with -DMGPT_SIMGPU=ON, as ./run test makes one in BUILD/sim; in others the tests are skipped.
"""
import os
import subprocess
import unittest

import harness

SIM = harness.BUILD
SUM, COPY, PARTS = "sum", "copy", "parts"


IS_SIMULATED = os.path.exists(os.path.join(SIM, "tests", "broken_kernels"))


def run_fault(kind, fault, **environment):
    done = subprocess.run([os.path.join(SIM, "tests", "broken_kernels"), kind, str(fault)], capture_output=True,
                          text=True, timeout=60, env={**os.environ, **environment})
    return done.returncode, done.stderr


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class Faults(unittest.TestCase):
    """Each deliberately broken kernel ends with the simulator's words, or with a wrong sum under every seed."""

    def test_right_kernels_pass_under_every_seed(self):
        for seed in range(8):
            for kind in (SUM, COPY, PARTS):
                self.assertEqual(run_fault(kind, 0, SIMGPU_SEED=str(seed)), (0, ""))

    def test_dropped_barrier_gives_wrong_sums(self):
        for seed in range(8):
            self.assertNotEqual(run_fault(SUM, 1, SIMGPU_SEED=str(seed))[0], 0)

    def test_blocks_take_turns_in_any_order(self):
        codes = {run_fault(PARTS, 10, SIMGPU_SEED=str(seed))[0] for seed in range(8)}
        self.assertIn(1, codes)

    def assert_stops(self, kind, fault, words, **environment):
        code, text = run_fault(kind, fault, **environment)
        self.assertLess(code, 0)
        self.assertIn(words, text)

    def test_writes_outside(self):
        self.assert_stops(SUM, 2, "wrote behind its shared memory")
        self.assert_stops(SUM, 3, "wrote outside an allocation")

    def test_reads_outside(self):
        """The red zone is NaN to its readers; the address sanitizer, where it is built in, ends the program."""
        self.assertNotEqual(run_fault(SUM, 9)[0], 0)

    def test_threads_that_do_not_meet(self):
        self.assert_stops(SUM, 4, "others have ended")
        code, text = run_fault(SUM, 5)
        self.assertLess(code, 0)
        self.assertIn("lanes", text)

    def test_shared_memory_nobody_wrote(self):
        self.assertEqual(run_fault(COPY, 6)[0], 1)

    def test_asynchronous_copies(self):
        self.assertEqual(run_fault(COPY, 7)[0], 1)
        self.assert_stops(COPY, 8, "not aligned to 16")

    def test_host_may_not_touch_device_memory(self):
        self.assertLess(run_fault("touch", 0, SIMGPU_PROTECT="1")[0], 0)


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class Kernels(unittest.TestCase):
    def test_against_twins(self):
        """Seed 1 is the unit tests' own run."""
        for program in ("device_test", "device_sample_test", "device_codec_test"):
            for seed in ("2", "3"):
                with self.subTest(program=program, seed=seed):
                    done = subprocess.run([os.path.join(SIM, "tests", program)], capture_output=True, text=True, timeout=300,
                                          env={**os.environ, "SIMGPU_SEED": seed})
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                    self.assertNotIn("skipped", done.stdout)


def mgpt(*arguments, **environment):
    return subprocess.run([os.path.join(SIM, "bin", "mgpt"), *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, env={**os.environ, **environment})


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class Worker(unittest.TestCase):
    """The whole worker on the device; what it answers is test_goldens_device.py's."""

    def test_a_library_that_varies_is_refused(self):
        model = os.path.join(harness.GOLDEN, "v7b", "model")
        arguments = ("inspect", "generate", "--model", model, "--prompt", "a", "--size", "32x32", "--temperature", 0,
                     "--device", "cuda", "--compute", "f32")
        for mode in ("", "first-varies"):
            done = mgpt(*arguments, SIMGPU_CUBLASLT=mode)
            self.assertEqual(done.returncode, 0, done.stderr)
        for mode in ("all-vary", "all-vary-late"):
            done = mgpt(*arguments, SIMGPU_CUBLASLT=mode)
            self.assertEqual(done.returncode, 1)
            self.assertIn("the same bits", done.stderr)

    def test_no_device(self):
        model = os.path.join(harness.GOLDEN, "v7b", "model")
        for devices, words in (("-1", "driver"), ("0", "CUDA_VISIBLE_DEVICES"), ("1", "this machine has 1")):
            done = mgpt("inspect", "generate", "--model", model, "--prompt", "a", "--size", "32x32", "--device", "cuda",
                        "--stages", 2, SIMGPU_DEVICES=devices)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
