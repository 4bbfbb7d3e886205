"""Goal: with --device cuda the programs give the public reference's answers too, in 1, 2 and 4 stages linked by NCCL.

Runs in builds with -DMGPT_SIMGPU=ON, as ./run test makes one in BUILD/sim; in others the tests are skipped. Limits as in
test_goldens.py. bf16 logits are held against the reference in 2 stages; test_nccl.py shows that other cuts give the same bits.
"""
import os
import unittest

import test_goldens
from harness import BUILD

IS_SIMULATED = os.path.exists(os.path.join(BUILD, "tests", "broken_kernels"))
ON_DEVICE = ("--device", "cuda")
simulated = unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")


@simulated
class Pictures(test_goldens.PictureTest):
    device = ON_DEVICE


@simulated
class LogitsInTwoStages(test_goldens.LogitsTest):
    stages = (*ON_DEVICE, "--stages", 2)


@simulated
class LogitsInOneStage(LogitsInTwoStages):
    stages = ON_DEVICE
    test_bf16 = None


@simulated
class LogitsInFourStages(LogitsInOneStage):
    stages = (*ON_DEVICE, "--stages", 4)


@simulated
class GreedyInOneStage(test_goldens.GreedyTest):
    stages = ON_DEVICE


@simulated
class GreedyInTwoStages(test_goldens.GreedyTest):
    stages = (*ON_DEVICE, "--stages", 2)


@simulated
class GreedyInFourStages(test_goldens.GreedyTest):
    stages = (*ON_DEVICE, "--stages", 4)


if __name__ == "__main__":
    unittest.main()
