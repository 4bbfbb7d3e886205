"""Goal: same seed, same picture on each instruction set by itself: alone and among 32 requests, in one and two stages."""
import os
import unittest
from unittest import mock

from harness import mgpt_json
from many_requests import all_alone, check_equal, mixed_requests

CODE_PATHS = ["portable", "avx2", "avx512bf16", "amx"]


class InstructionSetsTest(unittest.TestCase):
    def test_lower_ones_each_by_itself(self):
        """The best one that this machine has is the one of test_daemon.py."""
        best = mgpt_json("inspect", "device")["cpu"]["path"]
        requests = mixed_requests(32)
        for path in CODE_PATHS[:CODE_PATHS.index(best)]:
            with self.subTest(path=path), mock.patch.dict(os.environ, MGPT_CPU_PATH=path):
                expected = all_alone(requests)
                check_equal(self, requests, expected, "--stages", 1)
                check_equal(self, requests, expected, "--stages", 2)


if __name__ == "__main__":
    unittest.main()
