"""Goal: with --device cuda the programs give the public reference's answers too, in 1, 2 and 4 stages linked by NCCL.

All groups of test_goldens.py that a device has a part in, with its limits: pictures, prompts with pictures, draws, logits in f32 and
bf16, greedy tokens, sampled tokens. Runs in builds with -DMGPT_SIMGPU=ON, as ./run test makes one in BUILD/sim; in others the tests
are skipped. The simulated device is one thread a process, so as many cases run at once as there are processors.
"""
import os
import unittest

import test_goldens
from harness import BUILD

IS_SIMULATED = os.path.exists(os.path.join(BUILD, "tests", "broken_kernels"))
ON_DEVICE = ("--device", "cuda")
simulated = unittest.skipUnless(IS_SIMULATED, "skipped: a build without the simulated device")


class OnDevice:
    device, stages, at_once = ON_DEVICE, ON_DEVICE, os.cpu_count()


@simulated
class Pictures(OnDevice, test_goldens.PictureTest):
    pass


@simulated
class Prompts(OnDevice, test_goldens.TextTest):
    test_tokenizer = test_detokenizer = test_sizes = None  # no device has a part in them


@simulated
class Draws(OnDevice, test_goldens.DrawTest):
    test_law_of_the_draw = None  # the processor's draws follow it, see test_goldens.py

    def test_draws_are_those_of_the_processor(self):
        for k, temperature, ties in self.SETTINGS:
            logits = self.logits_of_a_draw(ties)
            here = self.draw(logits, k, temperature, 1000)
            self.assertGreater(len(set(here)), 5 if k > 1 else 0)
            self.assertEqual(self.draw(logits, k, temperature, 1000, *ON_DEVICE).tolist(), here.tolist())


@simulated
class Sampled(OnDevice, test_goldens.SampledTest):
    link = "nccl"


@simulated
class LogitsInOneStage(OnDevice, test_goldens.LogitsTest):
    pass


@simulated
class LogitsInTwoStages(LogitsInOneStage):
    stages = (*ON_DEVICE, "--stages", 2)


@simulated
class LogitsInFourStages(LogitsInOneStage):
    stages = (*ON_DEVICE, "--stages", 4)


@simulated
class GreedyInOneStage(OnDevice, test_goldens.GreedyTest):
    pass


@simulated
class GreedyInTwoStages(GreedyInOneStage):
    stages = (*ON_DEVICE, "--stages", 2)


@simulated
class GreedyInFourStages(GreedyInOneStage):
    stages = (*ON_DEVICE, "--stages", 4)


if __name__ == "__main__":
    unittest.main()
