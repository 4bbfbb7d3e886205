"""Goal: prompts, numbers, lists and files of options that a user or a script gives are taken or refused with the place and what was expected:
exit 1 for failed work, exit 2 for wrong use.
"""
import json
import os
import tempfile
import unittest

from harness import mgpt_json
from hostile import LIMIT_S, MODEL, NO_FILES, golden, refused, wrong_use

IDS = [
    ("empty", b"", ["no JSON"]),
    ("no list", b'{"ids": 5}', ["has 5", "expected an array"]),
    ("nested", b"[" * 60000, ["maximum parsing depth"]),
    ("a real number", b"[7, 1.0]", ["item 1 is 1.0", "expected a token id"]),
    ("a text", b'["7"]', ["item 0 is the string '7'", "expected a token id"]),
    ("negative", b"[-1]", ["item 0 is -1", "expected a token id"]),
    ("2^31", b"[2147483648]", ["item 0 is 2147483648", "expected a token id"]),
]

TALKS = [
    ("empty", b"", ["talk.json", "no JSON"]),
    ("no questions", b'{"images": []}', ["talk.json", "'qas' is nothing", "expected an array"]),
    ("a question alone", b'{"qas": [["a"]]}', ["talk.json", "'qas' entry 0"]),
    ("an answer that waits in the middle", b'{"qas": [["a", null], ["b", null]]}', ["talk.json", "'qas' entry 0", "only the last"]),
    ("pictures that are no files", b'{"images": [7], "qas": [["a", null]]}', ["talk.json", "'images' entry 0", "is 7"]),
    ("65 pictures", json.dumps({"images": ["x"] * 65, "qas": [["a", None]]}).encode(), ["talk.json", "'images' is an array of 65", "at most 64"]),
    ("100,000 marks", json.dumps({"qas": [["<|image|>" * 100000, None]]}).encode(), ["talk.json", "100000 marks"]),
    ("100,000 turns", json.dumps({"qas": [["a", "b"]] * 100000}).encode(), ["talk.json", "more than 65536 parts"]),
    ("a device as picture", b'{"images": ["/dev/zero"], "qas": [["a", null]]}', ["/dev/zero", "is a device"]),
    ("no UTF-8", b'{"qas": [["a\xff", null]]}', ["talk.json", "no JSON", "0xff"]),
]

DAEMON_CONFIGS = [
    ("a list", b"- model: x\n", ["line 1", "lists"]),
    ("an unknown option", b"stagees: 2\n", ["unknown option 'stagees'"]),
    ("an option twice", b"stages: 1\nstages: 2\n", ["line 2", "twice"]),
    ("a mapping below", b"stages: {a: 1}\n", ["line 1", "nothing below"]),
    ("aliases", b"model: &a x\nvq: *a\n", ["line 1", "anchors"]),
    ("a bomb", b"model: " + b"[" * 100000, ["line 1", "lists"]),
    ("a second document", b"stages: 1\n---\nstages: 2\n", ["line 3"]),
    ("a real number", b"stages: 1.5\n", ["--stages", "1.5"]),
    ("a huge number", b"stages: 99999999999\n", ["--stages is 99999999999", "expected 1 to 64"]),
    ("a flag that is maybe", b"no-confine: maybe\n", ["--no-confine", "maybe", "true or false"]),
    ("all bytes", bytes(range(256)), ["line 1"]),
    ("2 MB", b"#" * (2 << 20), ["2097152", "at most 1048576"]),
]

CONTROL = "<racm3:break><eoss><s></s><reserved08706><reserved08710>"


class PromptTest(unittest.TestCase):
    def generate(self, *options):
        return mgpt_json("inspect", "generate", "--model", MODEL, "--size", "64x64", "--seed", 1, *options, limit_s=LIMIT_S)

    def test_control_tokens_typed_as_text_stay_text(self):
        """The prompt's ids hold no more added tokens than those of a plain one."""
        added = {token["id"] for token in json.loads(golden("tokenizer.json"))["added_tokens"]}
        special = lambda prompt: [i for i in self.generate("--prompt", prompt)["prompt_ids"] if i in added]
        self.assertEqual(special(CONTROL), special("x"))

    def test_wrong_prompts(self):
        base = ["inspect", "generate", "--model", MODEL, "--size", "64x64"]
        refused(self, ["UTF-8"], *base, "--prompt", os.fsdecode(b"a\xff"))
        refused(self, ["positions"], *base, "--prompt", "word " * 20000)
        refused(self, ["UTF-8", "at 1"], "inspect", "tokenize", "--model", MODEL, data=b"a\xff")

    def test_no_prompt(self):
        with tempfile.TemporaryDirectory() as folder:
            refused(self, ["'prompt' is the string ''", "not empty"], "generate", "", "--local", MODEL, "-o", os.path.join(folder, "x.png"))
            refused(self, ["--model-name is '?'", "UTF-8"], "--model", MODEL, "--model-name", os.fsdecode(b"\xff"), "--http", "127.0.0.1:0", program="mgptd")

    def test_a_text_with_nul_and_a_megabyte(self):
        for text in (b"a\0b", b"\0" * (1 << 20), b"a" * (1 << 20), "北".encode() * (1 << 18)):
            ids = mgpt_json("inspect", "tokenize", "--model", MODEL, data=text, limit_s=LIMIT_S)
            self.assertGreaterEqual(len(ids["ids"] if isinstance(ids, dict) else ids), 3)

    def test_wrong_sizes(self):
        """What is a size and cannot be made is failed work; what is none is wrong use."""
        base = ["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size"]
        for size, words in (("65x64", ["65"]), ("64x48", ["48"]), ("2048x2048", ["positions", "4096"]), ("32x99968", ["99968", "multiple of 32"])):
            with self.subTest(size):
                refused(self, words, *base, size)
        for size in ("0x64", "64x0", "64x-64", "-1x5", "1e99x64", "99999999999x64", "64", "64x", "x64", "64x64x64", "64X64", " 64x64", "64x64 ", ""):
            with self.subTest(size):
                self.assertIn("--size wants WxH", wrong_use(self, *base, size))

    def test_wrong_values(self):
        base = ["inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", "64x64"]
        for name, values in (("--seed", ("-1", "1.5", "x", "", " 1", "0x10", "18446744073709551616")), ("--stages", ("0", "-1", "65", "1e1", "\t1")),
                             ("--temperature", ("nan", "inf", "-1", "1e999", "0x1p3", "1,5", "")), ("--guidance", ("nan", "-1", "1e39")),
                             ("--image-top-k", ("-1", "1.5", "99999999999")), ("--compute", ("f64", "")), ("--max-tokens", ("0", "-1", "99999999"))):
            for value in values:
                with self.subTest(name, value=value):
                    self.assertIn(name, wrong_use(self, *base, name, value))

    def test_ids_and_conversations(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, data, words in IDS:
                with self.subTest(name):
                    refused(self, ["stdin"] + words, "inspect", "detokenize", "--model", MODEL, data=data)
            path = os.path.join(folder, "talk.json")
            for name, data, words in TALKS:
                with self.subTest(name):
                    with open(path, "wb") as file:
                        file.write(data)
                    refused(self, words, "inspect", "prompt", "--model", MODEL, "--conversation", path)


class ConfigFileTest(unittest.TestCase):
    def test_refusals(self):
        """Of the daemon's own file: the line or the option, exit 2."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "mgptd.yaml")
            for name, data, words in DAEMON_CONFIGS:
                with self.subTest(name):
                    with open(path, "wb") as file:
                        file.write(data)
                    said = wrong_use(self, "--config", path, program="mgptd")
                    for word in [path] + words:
                        self.assertIn(word, said)
            os.unlink(path)
            for name, make, words in NO_FILES:
                with self.subTest(name):
                    make(path)
                    said = wrong_use(self, "--config", path, program="mgptd")
                    for word in [path] + words:
                        self.assertIn(word, said)
                    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)


if __name__ == "__main__":
    unittest.main()
