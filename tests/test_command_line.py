"""Goal: every command has help, wrong use is one line and exit 2, failed work is one line and exit 1, stdout is for answers alone."""
import json
import os
import tempfile
import unittest

import numpy as np

from daemon_process import Daemon
from harness import GOLDENS, mgpt, mgpt_json, read_tensors, refused, run, write_json, write_tensors

MODEL = GOLDENS[0].model
COMMANDS = [["generate"], ["bench"], ["make-checkpoint"], ["make-keys"]] + [["inspect", name] for name in (
    "tokenize", "detokenize", "prompt", "sizes", "encode", "decode", "sample", "logits", "generate", "checkpoint", "device")]


class DeviceTest(unittest.TestCase):
    def test_what_there_is(self):
        answer = mgpt_json("inspect", "device")
        cpu = answer["cpu"]
        self.assertEqual(cpu["cpus"], len(os.sched_getaffinity(0)))
        self.assertIn(cpu["path"], cpu["paths"])
        self.assertIn("portable", cpu["paths"])
        self.assertIn("devices", answer["cuda"])
        self.assertEqual(mgpt_json("inspect", "device", "--device", "cpu"), {"cpu": cpu})

    def test_the_path_that_the_environment_names(self):
        self.assertEqual(mgpt_json("inspect", "device", env={"MGPT_CPU_PATH": "portable"})["cpu"]["path"], "portable")
        self.assertIn("nonsense", refused(self, 1, "inspect", "device", "--device", "cpu", env={"MGPT_CPU_PATH": "nonsense"}))

    def test_wrong_names(self):
        for name in ("gpu", "cuda:", "cuda:x", "cuda:-1"):
            self.assertIn("expected cpu, cuda or cuda:K", refused(self, 2, "inspect", "device", "--device", name))


class UseTest(unittest.TestCase):
    def test_help(self):
        for program, *command in [["mgptd"], ["mgpt-worker"], ["mgpt"], ["mgpt", "inspect"]] + [["mgpt", *c] for c in COMMANDS]:
            with self.subTest(program=program, command=command):
                done = run(program, *command, "--help")
                self.assertEqual(done.returncode, 0)
                self.assertEqual(done.stderr, b"")
                self.assertTrue(done.stdout.startswith(b"usage: "), done.stdout[:80])

    def test_wrong_use_is_one_line_and_exit_2(self):
        for command in [[], ["nonsense"], ["inspect"], ["inspect", "nonsense"]] + [[*c, "--no-such-option"] for c in COMMANDS]:
            with self.subTest(command=command):
                text = refused(self, 2, *command)
                self.assertEqual(text.count("\n"), 1, text)

    def test_options_are_checked(self):
        base = ["inspect", "generate", "--model", MODEL]
        for more, word in ((["--prompt", "x", "--size", "64"], "WxH"), (["--prompt", "x", "--stages", "0"], "--stages"),
                           (["--prompt", "x", "--temperature", "nan"], "--temperature"), (["--prompt", "x", "--compute", "f16"], "bf16"),
                           (["--size", "64x64"], "--prompt"), (["--prompt", "x", "--conversation", "y"], "--conversation"),
                           (["--prompt", "x", "--seed", "-1"], "--seed")):
            with self.subTest(more=more):
                self.assertIn(word, refused(self, 2, *base, *more))

    def test_failed_work_is_one_line_and_exit_1(self):
        with tempfile.TemporaryDirectory() as folder:
            path = lambda name: os.path.join(folder, name)
            write_json(path("ids.json"), [1, 2, 3])
            write_json(path("words.json"), ["a"])
            write_json(path("large.json"), [1 << 40])
            write_tensors(path("other.safetensors"), {"other": np.ones((1, 2))})
            write_tensors(path("short.safetensors"), {"logits": np.ones((1, 2))})
            conversation = write_json(path("conversation.json"), {"images": ["/nowhere.png"], "qas": [["x", None]]})
            cases = [
                (["inspect", "tokenize", "--model", "/nowhere"], "/nowhere"),
                (["inspect", "decode", "--model", MODEL, "--ids", path("ids.json"), "-o", path("x.png")], "start"),
                (["inspect", "decode", "--model", MODEL, "--ids", path("words.json"), "-o", path("x.png")], "item 0"),
                (["inspect", "decode", "--model", MODEL, "--ids", path("large.json"), "-o", path("x.png")], "item 0"),
                (["inspect", "encode", "--model", MODEL, "--image", "/nowhere.png"], "/nowhere.png"),
                (["inspect", "encode", "--model", MODEL, "--image", path("ids.json")], "ids.json"),
                (["inspect", "prompt", "--model", MODEL, "--conversation", conversation], "/nowhere.png"),
                (["inspect", "logits", "--model", MODEL, "--ids", path("ids.json"), "--positions", "3", "--out", path("l")], "position 3"),
                (["inspect", "logits", "--model", MODEL, "--ids", path("ids.json"), "--positions", "a", "--out", path("l")], "--positions"),
                (["inspect", "sample", "--model", MODEL, "--logits", path("other.safetensors"), "--seeds", "0"], "logits"),
                (["inspect", "sample", "--model", MODEL, "--logits", path("short.safetensors"), "--seeds", "0"], "[1, 2]"),
                (["inspect", "sample", "--model", MODEL, "--logits", path("short.safetensors"), "--seeds", "5-4"], "--seeds"),
                (["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", "65x64"], "65"),
                (["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", "2048x2048"], "positions"),
                (["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", "64x64", "--device", "cuda:99"], "CUDA"),
                (["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", "64x64", "--kv-blocks", 1 << 22], "of the machine's memory"),
                (["inspect", "sizes", "--target-size", "100"], "100"),
                (["inspect", "checkpoint", "/nowhere"], "/nowhere"),
                (["make-checkpoint", "--shape", "9b", "--seed", "1", "--out", path("c")], "9b"),
                (["generate", "x", "--url", "http://127.0.0.1:1", "-o", path("x.png")], "127.0.0.1:1"),
                (["generate", "x", "--local", "/nowhere", "-o", path("x.png")], "/nowhere"),
            ]
            for command, word in cases:
                with self.subTest(command=command):
                    text = refused(self, 1, *command, data=b"")
                    self.assertIn(word, text)
                    self.assertTrue(text.splitlines()[-1].startswith("mgpt: "), text)


class AnswersTest(unittest.TestCase):
    def test_positions_come_in_the_order_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            ids = write_json(os.path.join(folder, "ids.json"), {"ids": [0, 9, 8, 7]})
            files = []
            for index, positions in enumerate(("0,2", "2,0,2")):
                files.append(os.path.join(folder, f"{index}.safetensors"))
                mgpt("inspect", "logits", "--model", MODEL, "--ids", ids, "--positions", positions, "--out", files[-1])
            one, two = (read_tensors(file)["logits"] for file in files)
            self.assertEqual(two.shape[0], 3)
            self.assertEqual([row.tobytes() for row in two], [one[1].tobytes(), one[0].tobytes(), one[1].tobytes()])

    def test_free_generation_ends_and_has_text(self):
        answer = mgpt_json("inspect", "generate", "--model", MODEL, "--prompt", "What is this?", "--max-tokens", 40, "--seed", 3)
        self.assertLessEqual(len(answer["ids"]), 40)
        self.assertIsInstance(answer["text"], str)
        again = mgpt_json("inspect", "generate", "--model", MODEL, "--prompt", "What is this?", "--max-tokens", 40, "--seed", 3, "--stages", 3)
        self.assertEqual(answer["ids"], again["ids"])

    def test_checkpoint_tells_every_stage(self):
        told = mgpt_json("inspect", "checkpoint", MODEL, "--stages", 3)
        self.assertEqual(len(told["stages"]), 3)
        self.assertEqual(sum(stage["file_bytes"] for stage in told["stages"]), told["file_bytes"])
        self.assertAlmostEqual(sum(stage["time_share"] for stage in told["stages"]), 1)
        by_hand = mgpt_json("inspect", "checkpoint", MODEL, "--cut", "0-1a,1f-3")
        self.assertEqual([stage["units"] for stage in by_hand["stages"]], ["embed,0-1a", "1f-3,head"])
        self.assertEqual(sum(stage["file_bytes"] for stage in by_hand["stages"]), told["file_bytes"])
        small, large = (mgpt_json("inspect", "checkpoint", MODEL, "--cut", "0-1a,1f-3", "--size", size)["stages"][0]["time_share"]
                        for size in ("32x32", "1024x1024"))
        self.assertLess(small, large)  # two attention parts of four beside the head: keys and values count

    def test_generate_by_a_daemon_and_on_the_spot_is_the_same(self):
        with tempfile.TemporaryDirectory() as folder, Daemon(MODEL, "--stages", 2) as daemon:
            made = {}
            for name, where in (("local", ["--local", MODEL]), ("daemon", ["--url", "http://" + daemon.address])):
                out = os.path.join(folder, name + ".png")
                lines = mgpt("generate", "a red fox", "--size", "64x96", "-n", 2, "--seed", 5, "--guidance", 3, "-o", out, *where)
                told = [json.loads(line) for line in lines.splitlines()]
                self.assertEqual(sorted(picture["file"] for picture in told), [os.path.join(folder, f"{name}-{i}.png") for i in (0, 1)])
                self.assertEqual({picture["seed"] for picture in told}, {5})
                made[name] = [open(os.path.join(folder, f"{name}-{i}.png"), "rb").read() for i in (0, 1)]
            self.assertEqual(made["local"], made["daemon"])
            self.assertNotEqual(*made["local"])
            alone = os.path.join(folder, "alone.png")
            mgpt("inspect", "generate", "--model", MODEL, "--prompt", "a red fox", "--size", "64x96", "--seed", 5, "--guidance", 3,
                 "--picture-index", 1, "-o", alone)
            with open(alone, "rb") as file:
                self.assertEqual(file.read(), made["local"][1])

    def test_refusal_of_a_daemon_is_told(self):
        with Daemon(MODEL) as daemon:
            text = refused(self, 1, "generate", "x", "--size", "2048x2048", "--url", "http://" + daemon.address, "-o", "/tmp/never.png")
            self.assertIn("positions", text)


if __name__ == "__main__":
    unittest.main()
