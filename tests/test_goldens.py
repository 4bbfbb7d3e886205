"""Goal: the programs give the public reference's own answers (tests/golden), within stated limits.

Limits: text and prompt ids equal; codes equal except where the reference's own margin is below 1e-3; pixels of a crop
within 2 levels (mean <= 0.2), of a decode within 1; f32 logits within 1e-3 standard deviations of their row; bf16
logits: mean total variation of the softmax <= 0.04 (the reference in bf16 itself: 0.01-0.03) and the same best token
where the reference's gap exceeds 0.2 standard deviations; greedy tokens equal up to the first place whose reference
margin is below 1e-3.
"""
import concurrent.futures
import os
import tempfile
import threading
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
    """test_goldens_device.py sets these: where the codec and draws work, where the stages do, and how many cases run at once."""
    device, stages, at_once = (), (), 1

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    @property
    def tmp(self):
        """A folder for each thread: cases that run at once do not meet in files."""
        folder = os.path.join(self.folder, str(threading.get_ident()))
        os.makedirs(folder, exist_ok=True)
        return folder

    def file(self, name):
        return os.path.join(self.tmp, name)

    def each(self, group, check, n_cases=None):
        """Calls check(golden, case) for every case of a group, or its first, so that one failure does not hide the others."""
        cases = [(golden, index, case) for golden in GOLDENS for index, case in enumerate(golden.cases[group][:n_cases])]
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            runs = [pool.submit(check, golden, case) for golden, _, case in cases]
            for (golden, index, _), run in zip(cases, runs):
                with self.subTest(model=golden.name, group=group, index=index):
                    run.result()

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
                            golden.conversation(self.tmp, case), "--target-size", 128, *self.device)
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


class SampledTest(GoldenTest):
    link = None  # what has to carry activations; None: whatever the machine has

    def test_sampled(self):
        """bf16, one seed: the same tokens in 1, 2 and 4 stages, each stage a process of its own."""
        def check(golden, case):
            first = None
            for stages in (1, 2, 4):
                got = self.generate(golden, case, "--temperature", 1, "--image-top-k", 500, "--seed", 5, "--stages", stages)
                self.assertEqual(len({stage["pid"] for stage in got["stages"]}), stages)
                if self.link:
                    self.assertEqual([stage["link"] for stage in got["stages"]], [self.link] * (stages - 1) + [""])
                first = first or got["ids"]
                self.assertEqual(got["ids"], first)
                self.assertGreater(len(set(first)), 3)

        self.each("greedy", check, 2)


class DrawTest(GoldenTest):
    SETTINGS = ((50, 1.0, False), (13, 0.7, True), (1, 1.0, False))  # k, temperature, ties with the k-th

    def logits_of_a_draw(self, ties):
        random = np.random.default_rng(7)
        logits = random.normal(0, 0.3, 10240).astype("<f4")
        best = random.choice(np.arange(4, 8196), 60, False)
        logits[best] = np.repeat(np.linspace(6, 4, 12), 5) if ties else np.linspace(6, 3, 60)
        logits[9000:9010] = 20  # text ids: masked inside a picture
        return logits

    def draw(self, logits, k, temperature, n, *more):
        """The ids of seeds 0 to n - 1."""
        path = self.file("logits.safetensors")
        write_tensors(path, {"logits": logits[None]})
        ids = mgpt_json("inspect", "sample", "--model", GOLDENS[0].model, "--logits", path, "--image-top-k", k,
                        "--temperature", temperature, "--seeds", f"0-{n - 1}", *more)
        self.assertEqual(len(ids), n)
        return np.array(ids)

    def test_law_of_the_draw(self):
        """20,000 draws follow softmax after top-k (ties with the k-th stay) and temperature."""
        for k, temperature, ties in self.SETTINGS:
            with self.subTest(k=k, temperature=temperature):
                logits = self.logits_of_a_draw(ties)
                ids = self.draw(logits, k, temperature, 20000)
                allowed = logits.astype(float)
                allowed[:4] = allowed[8196:] = -np.inf
                law = np.where(allowed >= np.sort(allowed)[-k], np.exp((allowed - allowed.max()) / temperature), 0)
                law /= law.sum()
                variation = 0.5 * np.abs(np.bincount(ids, minlength=law.size) / len(ids) - law).sum()
                self.assertLessEqual(variation, 0.035)


if __name__ == "__main__":
    unittest.main()
