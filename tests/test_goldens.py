"""Goal: the programs give the public reference's own answers (tests/golden), within stated limits.

Limits: text and prompt ids equal; codes equal except where the reference's own margin is below 1e-3; pixels of a crop
within 2 levels (mean <= 0.2), of a decode within 1; f32 logits within 1e-3 standard deviations of their row; bf16
logits: mean total variation of the softmax <= 0.04 (the reference in bf16 itself: 0.01-0.03) and the same best token
where the reference's gap exceeds 0.2 standard deviations; greedy tokens equal up to the first place whose reference
margin is below 1e-3.
"""
import os
import tempfile
import unittest

import numpy as np

from harness import GOLDENS, mgpt, mgpt_json, pixels, read_tensors, write_json, write_tensors

CODES = range(4, 8196)
SURE = 1e-3  # below this margin of the reference, rounding may decide otherwise


def frame(ids):
    """The tokens with every picture code made equal: what does not depend on the codec."""
    return [4 if token in CODES else token for token in ids]


def softmax(rows):
    exp = np.exp(rows - rows.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


class GoldenTest(unittest.TestCase):
    """test_goldens_device.py sets these: where the codec works, and where the stages do."""
    device, stages = (), ()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tmp = folder.name

    def file(self, name):
        return os.path.join(self.tmp, name)

    def each(self, group, check):
        """Calls check(golden, case) for every case of a group, so that one failure does not hide the others."""
        for golden in GOLDENS:
            for index, case in enumerate(golden.cases[group]):
                with self.subTest(model=golden.name, group=group, index=index):
                    check(golden, case)

    def generate(self, golden, case, *more):
        if "conversation" in case:
            what = ["--conversation", golden.conversation(self.tmp, case["conversation"]), "--target-size", 128]
        else:
            what = ["--prompt", case["prompt"]]
        return mgpt_json("inspect", "generate", "--model", golden.model, *what, "--size", f"{case['width']}x{case['height']}",
                         "--guidance", case["cfg"], *self.stages, *more)


class TextTest(GoldenTest):
    def test_tokenizer(self):
        def check(golden, case):
            self.assertEqual(mgpt_json("inspect", "tokenize", "--model", golden.model, data=case["text"].encode()), case["ids"])

        self.each("tokenizer", check)

    def test_detokenizer(self):
        def check(golden, case):
            text = mgpt("inspect", "detokenize", "--model", golden.model, data=str(case["ids"]).encode()).decode()
            self.assertIn(text, (case["text"], case["text"] + "\n"))

        self.each("detokenizer", check)

    def test_sizes(self):
        for golden in GOLDENS:
            for target, sizes in golden.cases["crop_size_list"].items():
                self.assertEqual(mgpt_json("inspect", "sizes", "--target-size", target), sizes)

    def test_conversations(self):
        def check(golden, case):
            ids = mgpt_json("inspect", "prompt", "--model", golden.model, "--conversation",
                            golden.conversation(self.tmp, case), "--target-size", 128)
            self.assertEqual(frame(ids), frame(case["ids"]))
            wrong = sum(a != b for a, b in zip(ids, case["ids"]))
            self.assertLessEqual(wrong, 0.02 * len(ids) if case["images"] else 0)

        self.each("conversations", check)


class PictureTest(GoldenTest):
    def test_encode(self):
        def check(golden, case):
            crop = self.file("crop.png")
            got = mgpt_json("inspect", "encode", "--model", golden.model, "--image", golden.path(case["file"]), "--target-size", 128,
                            "--crop", crop, *self.device)
            mine, reference = pixels(crop), pixels(golden.path(case["crop"]))
            self.assertEqual(mine.shape, reference.shape)
            difference = np.abs(mine - reference)
            self.assertLessEqual(difference.max(), 2)
            self.assertLessEqual(difference.mean(), 0.2)
            self.assertEqual(got["size"], case["crop_size"])
            self.assertEqual(frame(got["ids"]), frame(case["tokens"]))
            self.assertEqual(len(got["codes"]), len(case["codes"]))
            wrong = [m for a, b, m in zip(got["codes"], case["codes"], case["code_margin"]) if a != b]
            if difference.max() == 0:
                self.assertTrue(all(m < SURE for m in wrong), wrong)
            else:
                self.assertLessEqual(len(wrong), 0.05 * len(case["codes"]) + 1)

        self.each("images", check)

    def decode(self, golden, ids, reference):
        out = self.file("decoded.png")
        mgpt("inspect", "decode", "--model", golden.model, "--ids", write_json(self.file("ids.json"), ids), "-o", out, *self.device)
        self.assertLessEqual(np.abs(pixels(out) - pixels(golden.path(reference))).max(), 1)

    def test_decode(self):
        self.each("images", lambda golden, case: self.decode(golden, case["tokens"], case["decoded"]))
        self.each("greedy", lambda golden, case: self.decode(golden, case["prompt_ids"][-3:] + case["tokens"], case["decoded"]))


class LogitsTest(GoldenTest):
    def logits(self, golden, case, compute):
        out = self.file("logits.safetensors")
        mgpt("inspect", "logits", "--model", golden.model, "--ids", write_json(self.file("ids.json"), case["ids"]),
             "--positions", ",".join(map(str, case["positions"])), "--out", out, "--compute", compute, *self.stages)
        reference = read_tensors(golden.path("logits.safetensors"))[case["tensor"]].astype(np.float64)
        mine = read_tensors(out)["logits"].astype(np.float64)
        self.assertEqual(mine.shape, reference.shape)
        self.assertTrue(np.isfinite(mine).all())
        return mine, reference

    def test_f32(self):
        def check(golden, case):
            mine, reference = self.logits(golden, case, "f32")
            self.assertLessEqual((np.abs(mine - reference).max(1) / reference.std(1)).max(), 1e-3)

        self.each("logits", check)

    def test_bf16(self):
        def check(golden, case):
            mine, reference = self.logits(golden, case, "bf16")
            variation = 0.5 * np.abs(softmax(mine) - softmax(reference)).sum(1)
            self.assertLessEqual(variation.mean(), 0.04)
            top = np.sort(reference, 1)
            sure = top[:, -1] - top[:, -2] > 0.2 * reference.std(1)
            self.assertTrue((mine.argmax(1) == reference.argmax(1))[sure].all())

        self.each("logits", check)


class GreedyTest(GoldenTest):
    def test_greedy(self):
        def check(golden, case):
            got = self.generate(golden, case, "--temperature", 0, "--compute", "f32")
            self.assertEqual(frame(got["prompt_ids"]), frame(case["prompt_ids"]))
            self.assertEqual(frame(got["ids"]), frame(case["tokens"]))
            if got["prompt_ids"] != case["prompt_ids"]:
                return  # a code of an input picture differs within its margin: the rest may follow it
            n = next((k for k, margin in enumerate(case["margin"]) if margin < SURE), len(case["tokens"]))
            self.assertEqual(got["ids"][:n], case["tokens"][:n])

        self.each("greedy", check)


class DrawTest(GoldenTest):
    def test_law_of_the_draw(self):
        """20,000 draws follow softmax after top-k (ties with the k-th stay) and temperature."""
        golden, draws = GOLDENS[0], 20000
        for k, temperature, ties in [(50, 1.0, False), (13, 0.7, True), (1, 1.0, False)]:
            with self.subTest(k=k, temperature=temperature):
                random = np.random.default_rng(7)
                logits = random.normal(0, 0.3, 10240).astype("<f4")
                best = random.choice(np.arange(4, 8196), 60, False)
                logits[best] = np.repeat(np.linspace(6, 4, 12), 5) if ties else np.linspace(6, 3, 60)
                logits[9000:9010] = 20  # text ids: masked inside a picture
                path = self.file("logits.safetensors")
                write_tensors(path, {"logits": logits[None]})
                ids = np.array(mgpt_json("inspect", "sample", "--model", golden.model, "--logits", path, "--image-top-k", k,
                                         "--temperature", temperature, "--seeds", f"0-{draws - 1}"))
                allowed = logits.astype(float)
                allowed[:4] = allowed[8196:] = -np.inf
                law = np.where(allowed >= np.sort(allowed)[-k], np.exp((allowed - allowed.max()) / temperature), 0)
                law /= law.sum()
                self.assertEqual(len(ids), draws)
                variation = 0.5 * np.abs(np.bincount(ids, minlength=law.size) / draws - law).sum()
                self.assertLessEqual(variation, 0.035)


if __name__ == "__main__":
    unittest.main()
