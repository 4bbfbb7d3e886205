"""Goal: stages work at the same time. Apart from test_daemon.py, because a sanitizer's build says nothing about time."""
import tempfile
import time
import unittest

from daemon_process import Daemon, in_parallel
from harness import mgpt


class PipeliningTest(unittest.TestCase):
    def test_two_at_once_take_less_than_two_in_turn(self):
        """Paired runs of the same pictures; only the ratio within one run counts. The model is large enough (51 MB) that
        its products, not the messages about them, take the time."""
        requests = [{"prompt": "x", "size": "128x128", "seed": seed} for seed in (1, 2)]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        mgpt("make-checkpoint", "--shape", "hidden=512,inter=1376,layers=8,heads=8,kv_heads=8,vocab=16384", "--seed", 1, "--out", folder.name)
        with Daemon(folder.name, "--stages", 2) as daemon:
            daemon.picture(**requests[0])
            ratios = []
            for _ in range(5):
                start = time.monotonic()
                in_turn = [daemon.picture(**r) for r in requests]
                middle = time.monotonic()
                at_once = in_parallel([lambda r=r: daemon.picture(**r) for r in requests])
                self.assertEqual(in_turn, at_once)
                ratios.append((time.monotonic() - middle) / (middle - start))
        print(f"two at once / two in turn: median {sorted(ratios)[2]:.2f} of {' '.join(f'{r:.2f}' for r in ratios)}")
        self.assertLess(sorted(ratios)[2], 0.95)


if __name__ == "__main__":
    unittest.main()
