"""Goal: one seed, one picture. How a model is cut, how a prompt is fed and how many threads compute change no bit."""
import os
import tempfile
import unittest

from harness import GOLDENS, mgpt, mgpt_json, read_tensors, refused, write_json

SEED = 5


class InvarianceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tmp = folder.name

    def generate(self, golden, *more):
        return mgpt_json("inspect", "generate", "--model", golden.model, "--prompt", "two cats", "--size", "96x64", "--guidance", 4,
                         "--temperature", 1, "--image-top-k", 500, "--seed", SEED, *more)

    def test_every_number_of_stages_gives_the_same_tokens(self):
        for golden, layers in zip(GOLDENS, (4, 6)):
            for compute in ("bf16", "f32"):
                first = None
                for stages in range(1, layers + 3):
                    with self.subTest(model=golden.name, compute=compute, stages=stages, seed=SEED):
                        got = self.generate(golden, "--compute", compute, "--stages", stages)
                        self.assertEqual(len({stage["pid"] for stage in got["stages"]}), stages)
                        first = first or got["ids"]
                        self.assertEqual(got["ids"], first)
                        self.assertGreater(len(set(first)), 3)

    def test_too_many_stages_are_refused(self):
        text = refused(self, 1, "inspect", "generate", "--model", GOLDENS[0].model, "--prompt", "x", "--size", "64x64", "--stages", 7)
        self.assertIn("6", text)

    def test_threads_change_nothing(self):
        for golden in GOLDENS:
            one, two = (self.generate(golden, "--threads", n)["ids"] for n in (1, 2))
            self.assertEqual(one, two)

    def test_another_seed_is_another_picture(self):
        one = self.generate(GOLDENS[0])["ids"]
        self.assertNotEqual(one, self.generate(GOLDENS[0], "--seed", SEED + 1)["ids"])

    def logits(self, golden, ids, positions, *more):
        out = os.path.join(self.tmp, "logits.safetensors")
        mgpt("inspect", "logits", "--model", golden.model, "--ids", write_json(os.path.join(self.tmp, "ids.json"), ids),
             "--positions", ",".join(map(str, positions)), "--out", out, *more)
        return read_tensors(out)["logits"].tobytes()

    def test_prefill_whole_in_chunks_and_decode_are_bit_equal(self):
        """Positions around the attention splits at 256 and 512, whole, in chunks of 64 and 7, and one by one."""
        positions = [0, 1, 63, 64, 255, 256, 257, 300, 511, 512, 513, 549]
        for golden in GOLDENS:
            ids = next(case["ids"] for case in golden.cases["logits"] if len(case["ids"]) > 1000)[:550]
            for compute in ("bf16", "f32"):
                whole = self.logits(golden, ids, positions, "--compute", compute, "--chunk", 550)
                for chunk, stages in ((64, 1), (7, 2), (1, 3)):
                    with self.subTest(model=golden.name, compute=compute, chunk=chunk, stages=stages):
                        self.assertEqual(self.logits(golden, ids, positions, "--compute", compute, "--chunk", chunk, "--stages", stages),
                                         whole)
                shorter = self.logits(golden, ids[:301], [300], "--compute", compute)
                rows = len(positions)
                self.assertEqual(shorter, whole[7 * len(whole) // rows:8 * len(whole) // rows])


if __name__ == "__main__":
    unittest.main()
