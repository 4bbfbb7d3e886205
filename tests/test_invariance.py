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

    def test_every_cut_gives_the_same_tokens(self):
        """Whole layers, halves of them, every unit alone."""
        for golden, layers in zip(GOLDENS, (4, 6)):
            last, middle = layers - 1, layers // 2 - 1
            by_hand = {f"0-{middle}a,{middle}f-{last}": [f"embed,0-{middle}a", f"{middle}f-{last},head"],
                       f"embed,0a,0f-{last}a,{last}f,head": ["embed", "0a", f"0f-{last}a", f"{last}f", "head"],
                       f"embed-0,1-{last}a,{last}f-head": ["embed,0", f"1-{last}a", f"{last}f,head"]}
            cuts = [(("--stages", n), n, None) for n in (1, 2, 3, 4, layers + 2, 2 * layers + 2)]
            cuts += [(("--cut", text), len(units), units) for text, units in by_hand.items()]
            for compute in ("bf16", "f32"):
                first = None
                for cut, stages, units in cuts:
                    with self.subTest(model=golden.name, compute=compute, cut=cut, seed=SEED):
                        got = self.generate(golden, "--compute", compute, *cut)
                        self.assertEqual(len({stage["pid"] for stage in got["stages"]}), stages)
                        self.assertEqual([stage["units"] for stage in got["stages"]], units or [stage["units"] for stage in got["stages"]])
                        first = first or got["ids"]
                        self.assertEqual(got["ids"], first)
                        self.assertGreater(len(set(first)), 3)

    def test_impossible_cuts_are_refused(self):
        for cut, words in ((("--stages", 11), "expected 1 to 10"), (("--cut", "0-1a,2-3"), "the cut '0-1a,2-3' leaves a gap at 1f"),
                           (("--cut", "0-4"), "out of embed, 0 to 3, head"), (("--stages", 3, "--cut", "0-1,2-3"), "has 2 stages, 3 were asked for")):
            with self.subTest(cut=cut):
                text = refused(self, 1, "inspect", "generate", "--model", GOLDENS[0].model, "--prompt", "x", "--size", "64x64", *cut)
                self.assertIn(words, text)
                self.assertEqual(len(text.splitlines()), 1, text)

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
                for chunk, cut in ((64, ("--stages", 1)), (7, ("--stages", 2)), (1, ("--stages", 3)), (60, ("--cut", "0-1a,1f-2a,2f-head"))):
                    with self.subTest(model=golden.name, compute=compute, chunk=chunk, cut=cut):
                        self.assertEqual(self.logits(golden, ids, positions, "--compute", compute, "--chunk", chunk, *cut), whole)
                shorter = self.logits(golden, ids[:301], [300], "--compute", compute)
                rows = len(positions)
                self.assertEqual(shorter, whole[7 * len(whole) // rows:8 * len(whole) // rows])


if __name__ == "__main__":
    unittest.main()
