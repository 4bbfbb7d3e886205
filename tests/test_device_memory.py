"""Goal: device memory is taken at start, reported, and not touched afterwards; the default number of KV blocks comes from what the
devices have left; a picture too large for what was reserved is refused at the door.

Runs in builds with -DMGPT_SIMGPU=ON, as ./run test makes one in BUILD/sim; in others the tests are skipped.
"""
import os
import re
import subprocess
import unittest
from unittest import mock

from daemon_process import Daemon, in_parallel
from harness import BIN, BUILD, GOLDENS, mgpt_json

IS_SIMULATED = os.path.exists(os.path.join(BUILD, "tests", "broken_kernels"))
MODEL = GOLDENS[0].model
TWO_STAGES = ("--device", "cuda", "--cut", "0-1,2-3")
MIB = 1 << 20


def chosen_blocks(daemon):
    return int(re.search(r"kv blocks chosen blocks=(\d+)", daemon.log_text())[1])


def stage_values(daemon, name):
    values = {key: value for key, value in daemon.metrics().items() if key.startswith(f"mgpt:{name}{{")}
    return [values[key] for key in sorted(values)]


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class TakenAtStart(unittest.TestCase):
    def test_nothing_is_allocated_while_pictures_are_made(self):
        with mock.patch.dict(os.environ, SIMGPU_SAY_ALLOCATIONS="1"), Daemon(MODEL, *TWO_STAGES) as daemon:
            before = daemon.log_text().count("simgpu: cudaMalloc")
            in_parallel([lambda seed=seed: daemon.picture(prompt="a fox", size="64x64", seed=seed) for seed in (1, 2)])
            daemon.picture(prompt="a larger one", size="128x128", seed=3)
            log = daemon.log_text()
            self.assertIn("recorded a graph", log)
            self.assertGreater(before, 20, "what is taken at start is told")
            self.assertEqual(log.count("simgpu: cudaMalloc"), before, log[-3000:])

    def test_what_is_held_is_reported(self):
        with Daemon(MODEL, *TWO_STAGES) as daemon:
            parts = [stage_values(daemon, f"stage_{name}_bytes") for name in
                     ("weight", "kv", "activation", "workspace", "device", "device_free", "device_total")]
            for weight, kv, activation, workspace, held, free, total in zip(*parts):
                small = held - weight - kv - activation - workspace
                self.assertGreaterEqual(small, 0)
                self.assertLess(small, MIB)
                self.assertEqual(free, total - held)
            self.assertEqual(stage_values(daemon, "stage_recording_bytes"), [128 * MIB] * 2)
            work, held = daemon.gauge("mgpt:codec_work_bytes"), daemon.gauge("mgpt:codec_device_bytes")
            self.assertGreater(work, 100 * MIB, "pictures of as many pixels as 4096 positions have codes for")
            self.assertGreater(held, work + daemon.gauge("mgpt:codec_weight_bytes"))
            self.assertIn(f"units=codec weight_bytes={daemon.gauge('mgpt:codec_weight_bytes'):.0f} activation_bytes={work:.0f}",
                          daemon.log_text())
            # What the codec takes is gone before anybody says what is left.
            self.assertLess(daemon.log_text().index("loaded units=codec"), daemon.log_text().index("kv blocks chosen"))
            # With enough memory it is what the scheduler can use.
            self.assertEqual(chosen_blocks(daemon), 32 * 3 * 2 * ((2356 + 256) // 64 + 1))


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class LargestPicture(unittest.TestCase):
    def test_a_larger_one_is_refused(self):
        with Daemon(MODEL, *TWO_STAGES, "--picture-max", "64x64") as small:
            self.assertLess(small.gauge("mgpt:codec_work_bytes"), 4 * MIB)
            reply = small.generate(prompt="a fox", size="128x64")
            self.assertEqual(reply.status, 400)
            error = reply.json()["error"]
            self.assertEqual(error["param"], "size")
            self.assertIn("128x64, expected at most 4096 pixels", error["message"])
            self.assertIn("--picture-max", error["message"])
            self.assertEqual(small.generate(prompt="a fox", size="64x64").status, 200)

    def test_too_little_memory_for_it(self):
        text = refused("--picture-max", "2048x2048", SIMGPU_MEMORY_MB="300")
        self.assertIn("pictures of 4194304 pixels need", text)
        self.assertIn("of 300", text)
        self.assertIn("--picture-max", text)

    def test_more_than_any_codec_takes(self):
        self.assertIn("expected at most 4194304", refused("--picture-max", "4096x4096"))


def refused(*options, **environment):
    """The one error line of a daemon that does not start."""
    done = subprocess.run([os.path.join(BIN, "mgptd"), "--model", MODEL, "--http", "127.0.0.1:0", "--log-level", "error",
                           *map(str, (*TWO_STAGES, *options))], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **environment})
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class DefaultBlocks(unittest.TestCase):
    def test_the_device_with_the_smallest_room_decides(self):
        """Each has 400 MiB; 128 are kept for recordings, a 32nd part stays free. The codec on device 0 is another process, which the
        simulated device does not count together."""
        with mock.patch.dict(os.environ, SIMGPU_MEMORY_MB="400"), Daemon(MODEL, *TWO_STAGES) as daemon:
            blocks = chosen_blocks(daemon)
            self.assertEqual(daemon.gauge("mgpt:cache_config_info"), 1)
            self.assertIn(f'num_gpu_blocks="{blocks}"', daemon.get("/metrics").body.decode())
            kv = stage_values(daemon, "stage_kv_bytes")
            # What a block more would take, and vectors that nobody counts, are all that is left too much where there is least.
            left = min(stage_values(daemon, "stage_device_free_bytes")) - 128 * MIB - 400 * MIB / 32
            self.assertLess(abs(left), max(kv) / blocks + MIB)
            self.assertEqual(daemon.generate(prompt="a fox", size="64x64").status, 200)

    def test_too_little_memory(self):
        text = refused("--picture-max", "64x64", SIMGPU_MEMORY_MB="210,8192")
        self.assertRegex(text, r"cuda:0 has \d+ of 210 MiB free; the stages there need \d+ MiB and leave 6 free")
        self.assertIn("use more --stages", text)

    def test_a_number_by_hand_is_not_asked_about(self):
        with Daemon(MODEL, *TWO_STAGES, "--kv-blocks", 200) as daemon:
            self.assertNotIn("kv blocks chosen", daemon.log_text())
            self.assertIn('num_gpu_blocks="200"', daemon.get("/metrics").body.decode())


@unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")
class OneCommand(unittest.TestCase):
    def test_the_memory_of_each_stage(self):
        answer = mgpt_json("inspect", "generate", "--model", MODEL, "--prompt", "a", "--size", "32x32", *TWO_STAGES)
        self.assertEqual([stage["recording_bytes"] for stage in answer["stages"]], [128 * MIB] * 2)
        for stage in answer["stages"]:
            self.assertGreaterEqual(stage["device_bytes"],
                                    stage["bytes"] + stage["kv_bytes"] + stage["activation_bytes"] + stage["workspace_bytes"])


if __name__ == "__main__":
    unittest.main()
