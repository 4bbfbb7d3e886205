"""Goal: a stage holds its own units and its KV pool, and little else: nothing of the other stages, no second copy of a weight.

The bound is 1.1 times the bytes of the stage's units in bf16, plus its KV pool, plus CONSTANT_BYTES for the program, its libraries
and the rows of small steps (12 MB were seen; worker/README.md promises 64 MiB, for every size of model and step).
"""
import re
import tempfile
import unittest

from daemon_process import Daemon
from harness import mgpt, run

CONSTANT_BYTES = 24 << 20
HIDDEN, INTER, LAYERS, VOCAB, HEADS = 1024, 2816, 8, 16384, 8
KV_BLOCKS = 8
LAYER_BYTES = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTER)
LAYER_KV_BYTES = KV_BLOCKS * 64 * 2 * HIDDEN * 2
TABLE_BYTES = 2 * VOCAB * HIDDEN  # the embedding, and the head


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


def is_stage(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"codec" not in file.read().split(b"\0")


class MemoryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        mgpt("make-checkpoint", "--shape", f"hidden={HIDDEN},inter={INTER},layers={LAYERS},heads={HEADS},kv_heads={HEADS},vocab={VOCAB}",
             "--seed", 1, "--out", cls.folder.name)

    def test_stages_hold_their_own_units(self):
        for stages in (1, 2, 4):
            with self.subTest(stages=stages), Daemon(self.folder.name, "--stages", stages, "--kv-blocks", KV_BLOCKS) as daemon:
                for when in ("after load", "after a picture"):
                    sizes = [resident_bytes(pid) for pid in daemon.children() if is_stage(pid)]
                    self.assertEqual(len(sizes), stages)
                    weights = LAYERS * LAYER_BYTES + 2 * TABLE_BYTES
                    limit = 1.1 * weights + LAYERS * LAYER_KV_BYTES + stages * CONSTANT_BYTES
                    print(f"{stages} stages {when}: {sum(sizes) / 1e6:.1f} MB resident, limit {limit / 1e6:.1f} MB")
                    self.assertLessEqual(sum(sizes), limit)
                    # Units differ in size by at most a table, so the cut is even to within the largest unit.
                    self.assertLessEqual(max(sizes), 1.1 * (weights / stages + LAYER_BYTES + TABLE_BYTES) + LAYERS * LAYER_KV_BYTES / stages
                                         + LAYER_KV_BYTES + CONSTANT_BYTES)
                    daemon.picture(prompt="x", size="64x64", seed=1)

    def test_a_command_takes_blocks_for_its_own_pictures(self):
        """The daemon's default here is 16 pictures of 768x768: more than 1,000 blocks."""
        blocks = []
        for count in (1, 3):
            done = run("mgpt", "generate", "x", "--size", "64x64", "-n", count, "--seed", 1, "--local", self.folder.name,
                       "-o", f"{self.folder.name}/x.png", env={"MGPT_LOG": "info"})
            self.assertEqual(done.returncode, 0, done.stderr)
            blocks.append(int(re.search(rb"kv_bytes=(\d+)", done.stderr)[1]) * KV_BLOCKS // (LAYERS * LAYER_KV_BYTES))
        print(f"1 and 3 pictures of 64x64: {blocks} blocks")
        self.assertLessEqual(blocks[0], 8)
        self.assertEqual(blocks[1] - 2, 3 * (blocks[0] - 2))


if __name__ == "__main__":
    unittest.main()
