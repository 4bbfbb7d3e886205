"""Goal: whatever a stranger's checkpoint, picture or request holds, the programs answer with one clear refusal: exit 1 or HTTP 400,
naming what is wrong and what was expected, in bounded time. The unit tests beside the parsers have many more cases; these go through
the built programs, so that no way around a check is left. Each spoilt folder is the golden one but for one file.
"""
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import unittest
import zipfile
import zlib

from PIL import Image, ImageOps

from daemon_process import Daemon
from harness import GOLDEN, GOLDENS, mgpt_json, run, write_json

MODEL = GOLDENS[0].model
PICTURES = os.path.join(GOLDEN, "pictures")
SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
CKPT = "tokenizer/vqgan.ckpt"
YAML = "tokenizer/vqgan.yaml"
LIMIT_S = 120  # for one program, sanitizers and a busy machine included; a hang meets it


def golden(name):
    with open(os.path.join(MODEL, name), "rb") as file:
        return file.read()


class Folder:
    """with Folder({"config.json": b"..."}) as path: the golden folder by links, with these files instead of its own."""

    def __init__(self, files):
        self.files = files

    def __enter__(self):
        self.path = tempfile.mkdtemp()
        os.mkdir(os.path.join(self.path, "tokenizer"))
        for at, _, names in os.walk(MODEL):
            for name in names:
                path = os.path.relpath(os.path.join(at, name), MODEL)
                if path not in self.files:
                    os.symlink(os.path.join(MODEL, path), os.path.join(self.path, path))
        for name, data in self.files.items():
            with open(os.path.join(self.path, name), "wb") as file:
                file.write(data)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def refused(test, words, *args, program="mgpt", **more):
    """The program ends with exit 1 in time, says one line with all of these words, and writes no answer."""
    done = run(program, *args, limit_s=LIMIT_S, **more)
    text = done.stderr.decode()
    test.assertNotIn("Sanitizer", text, text[-3000:])
    test.assertEqual(done.returncode, 1, text)
    test.assertEqual(done.stdout, b"")
    own = [line for line in text.splitlines() if line.startswith(program + ": ")]  # besides the workers' log
    test.assertEqual(len(own), 1, text)
    for word in words:
        test.assertIn(word, own[0])


# ---- files of a checkpoint ----

def shard(change=lambda header, data: None, length=None, tail=b"", keep=None):
    """SHARD with its header changed, or its data in place (a bytearray); `length` is what the file says of its header."""
    raw = golden(SHARD)
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + n]), bytearray(raw[8 + n:])
    text = change(header, data) or json.dumps(header).encode()
    return (struct.pack("<Q", len(text) if length is None else length) + text + bytes(data) + tail)[:keep]


DOWN = "model.layers.2.mlp.down_proj.weight"


def with_entry(**fields):
    return shard(lambda header, _: header[DOWN].update(fields))


def with_number(bits, first=0, n=1):
    """SHARD with n numbers of layer 2's down_proj set to these 16 bits of BF16."""
    def change(header, data):
        start = header[DOWN]["data_offsets"][0] + 2 * first
        data[start:start + 2 * n] = struct.pack("<H", bits) * n
    return shard(change)


def renamed(header, _):
    header["stranger"] = header.pop(DOWN)


def doubled(header, _):
    text = json.dumps(header)
    return (text[:-1] + f', "{DOWN}": {json.dumps(header[DOWN])}}}').encode()


def index(**places):
    value = json.loads(golden(INDEX))
    value["weight_map"].update(places)
    return json.dumps(value).encode()


def config(**fields):
    return json.dumps({**json.loads(golden("config.json")), **fields}).encode()


WEIGHTS = [
    ("truncated shard", {SHARD: shard(keep=-1)}, [SHARD, "bytes"]),
    ("padded shard", {SHARD: shard(tail=b"x")}, [SHARD, "1 bytes behind"]),
    ("empty shard", {SHARD: b""}, [SHARD]),
    ("header of 2^62 bytes", {SHARD: shard(length=1 << 62)}, [SHARD, str(1 << 62), "at most"]),
    ("offsets outside the file", {SHARD: with_entry(data_offsets=[1 << 40, (1 << 40) + 22528])}, [SHARD, DOWN, str(1 << 40)]),
    ("overlapping tensors", {SHARD: with_entry(data_offsets=[0, 22528])}, [SHARD, "overlap"]),
    ("negative shape", {SHARD: with_entry(shape=[-64, -176])}, [SHARD, DOWN, "'shape'", "-64"]),
    ("huge shape", {SHARD: with_entry(shape=[1 << 62, 4])}, [SHARD, DOWN, "'shape'"]),
    ("overflowing shape", {SHARD: with_entry(shape=[1 << 32, 1 << 32])}, [SHARD, DOWN]),
    ("wrong shape", {SHARD: with_entry(shape=[176, 64])}, [SHARD, DOWN, "[176, 64]", "expected [64, 176]"]),
    ("wrong type", {SHARD: with_entry(dtype="F4")}, [SHARD, DOWN, "'F4'"]),
    ("missing tensor", {SHARD: shard(renamed)}, [SHARD, DOWN]),
    ("doubled tensor", {SHARD: shard(doubled)}, [SHARD, "duplicate"]),
    ("index without a tensor", {INDEX: json.dumps({"weight_map": {}}).encode()}, [INDEX, "model.embed_tokens.weight"]),
    ("index names another folder", {INDEX: index(**{DOWN: "../" + SHARD})}, [INDEX, "'../" + SHARD, "same folder"]),
    ("index names an absolute path", {INDEX: index(**{DOWN: "/etc/passwd"})}, [INDEX, "'/etc/passwd'", "same folder"]),
    ("index of a file that is not there", {INDEX: index(**{DOWN: "none.safetensors"})}, [INDEX, "none.safetensors", "no such file"]),
    ("index is no JSON", {INDEX: b"{"}, [INDEX, "no JSON"]),
    ("config is no JSON", {"config.json": b"model_type: chameleon"}, ["config.json", "no JSON"]),
    ("no heads", {"config.json": config(num_attention_heads=0)}, ["config.json", "'num_attention_heads'", "0", "from 1"]),
    ("heads that do not divide", {"config.json": config(num_attention_heads=5)}, ["config.json", "'hidden_size'", "64", "multiple", "5"]),
    ("10^9 layers", {"config.json": config(num_hidden_layers=10 ** 9)}, ["config.json", "'num_hidden_layers'", "1000000000", "1024"]),
    ("another model", {"config.json": config(model_type="llama")}, ["config.json", "'model_type'", "'llama'", "'chameleon'"]),
    ("another RoPE", {"config.json": config(rope_scaling={"type": "dynamic", "factor": 2})},
     ["config.json", "'rope_scaling.type'", "'dynamic'", "'linear'"]),
    ("another vocabulary size", {"config.json": config(vocab_size=10241)}, ["model.embed_tokens.weight", "[10240, 64]", "expected [10241, 64]"]),
]


def tokenizer(change):
    value = json.loads(golden("tokenizer.json"))
    change(value)
    return json.dumps(value).encode()


def regex(pattern):
    return lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=pattern)


TOKENIZERS = [
    ("no JSON", golden("tokenizer.json")[:1000], ["line 1"], b"a"),
    ("unknown pre-tokenizer", tokenizer(lambda t: t.update(pre_tokenizer={"type": "Metaspace"})), ["pre_tokenizer", "'Metaspace'"], b"a"),
    ("id out of range", tokenizer(lambda t: t["model"]["vocab"].update(a=1 << 30)), ["'a'", str(1 << 30), "expected 0 to"], b"a"),
    ("negative id", tokenizer(lambda t: t["model"]["vocab"].update(a=-1)), ["'a'", "-1", "expected 0 to"], b"a"),
    ("doubled id", tokenizer(lambda t: t["model"]["vocab"].update(a=t["model"]["vocab"]["b"])), ["'a'", "'b'"], b"a"),
    ("merge of an unknown part", tokenizer(lambda t: t["model"]["merges"].insert(0, "a nobody")), ["merge 0", "'nobody'"], b"a"),
    ("a regex that is none", tokenizer(regex("(")), ["regex '('"], b"a"),
    ("a regex that backtracks for ever", tokenizer(regex("(a+)+$")), ["needs more than"], b"a" * 4000 + b"b"),
]


def rezip(change_entry=lambda name, data: data):
    """vqgan.ckpt with entries changed by name; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(golden(CKPT))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = change_entry(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return out.getvalue()


def with_pickle(data):
    return rezip(lambda name, old: data if name.endswith("data.pkl") else old)


def patched(where, field, value, width=4):
    """vqgan.ckpt with a field overwritten: in the directory's first entry, or in the record at the end."""
    raw = bytearray(golden(CKPT))
    end = raw.rindex(b"PK\5\6")
    base = end if where == "end" else struct.unpack_from("<I", raw, end + 16)[0]
    raw[base + field:base + field + width] = value.to_bytes(width, "little")
    return bytes(raw)


class Called:
    """Its pickle asks the reader to run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def bomb(n):
    """A dict whose n lists each hold the one before twice: 2^n values when copied."""
    value = []
    for _ in range(n):
        value = [value, value]
    return pickle.dumps({"state_dict": value}, 2)


def first_storage_cut(name, data):
    return data[:16] if name.endswith("data/0") else data


CODECS = [
    ("truncated", {CKPT: golden(CKPT)[:-1]}, [CKPT, "zip"]),
    ("no zip", {CKPT: b"\x80\x02}."}, [CKPT, "no zip archive"]),
    ("wrong CRC", {CKPT: patched("entry", 16, 7)}, [CKPT, "data.pkl", "CRC", "expected 00000007"]),
    ("encrypted", {CKPT: patched("entry", 8, 1, 2)}, [CKPT, "data.pkl", "encrypted"]),
    ("zip64 entry", {CKPT: patched("entry", 24, 0xffffffff)}, [CKPT, "data.pkl", "zip64"]),
    ("zip64 archive", {CKPT: patched("end", 16, 0xffffffff)}, [CKPT, "zip64"]),
    ("zip bomb", {CKPT: patched("entry", 24, 300000000)}, [CKPT, "data.pkl", "300000000"]),
    ("directory past the end", {CKPT: patched("end", 16, 0x7fffffff)}, [CKPT, "past the end"]),
    ("deep recursion", {CKPT: with_pickle(b"(" * 1000000 + b".")}, [CKPT, "data.pkl", "nested too deeply"]),
    ("memo bomb", {CKPT: with_pickle(bomb(200))}, [CKPT, "'state_dict' is a list", "expected a dict"]),
    ("memo index of 4 billion", {CKPT: with_pickle(b"Nr\xff\xff\xff\xff.")}, [CKPT, "data.pkl", "memo index"]),
    ("persistent id that is no storage", {CKPT: with_pickle(b"}X\x0a\0\0\0state_dict}X\x15\0\0\0decoder.conv_in.weightX\1\0\0\0aQss.")}, [CKPT]),
    ("storage beyond its entry", {CKPT: rezip(first_storage_cut)}, [CKPT, "data/0' has 16 bytes"]),
    ("storage without an entry", {CKPT: rezip(lambda name, data: None if name.endswith("data/0") else data)}, [CKPT, "no entry 'data/0'"]),
    ("anchors that multiply", {YAML: b"a: &a [x, x, x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c, *%c, *%c]\n" % ((c, c) + (c - 1,) * 4) for c in b"bcdefghij")}, [YAML, "line 2", "aliases"]),
    ("deep YAML", {YAML: b"a: " + b"[" * 1000}, [YAML, "deeper than"]),
    ("no YAML", {YAML: b"model: {\n"}, [YAML, "no YAML"]),
    ("another width", {YAML: golden(YAML).replace(b"ch: 32", b"ch: 64")}, [CKPT, "expected"]),
    ("a width of 0", {YAML: golden(YAML).replace(b"ch: 32", b"ch: 0")}, [YAML, "ddconfig.ch'", "from 1 to"]),
]


class CheckpointTest(unittest.TestCase):
    def test_weights(self):
        for name, files, words in WEIGHTS:
            with self.subTest(name), Folder(files) as folder:
                refused(self, words, "inspect", "checkpoint", folder)

    def test_a_worker_and_a_daemon_refuse_alike(self):
        for name, files, words in WEIGHTS[9:12] + WEIGHTS[23:24]:
            with self.subTest(name), Folder(files) as folder, tempfile.TemporaryDirectory() as out:
                ids = write_json(os.path.join(out, "ids.json"), [0, 9])
                refused(self, words, "inspect", "logits", "--model", folder, "--ids", ids, "--positions", 0, "--out", os.path.join(out, "l"))
                refused(self, words, "--model", folder, "--http", "127.0.0.1:0", program="mgptd")

    def test_tokenizers(self):
        for name, data, words, text in TOKENIZERS:
            with self.subTest(name), Folder({"tokenizer.json": data}) as folder:
                refused(self, words, "inspect", "tokenize", "--model", folder, data=text)

    def test_codecs(self):
        with tempfile.TemporaryDirectory() as out:
            picture = os.path.join(PICTURES, "plain3.png")
            for name, files, words in CODECS:
                with self.subTest(name), Folder(files) as folder:
                    refused(self, words, "inspect", "encode", "--model", folder, "--target-size", 64, "--image", picture)

    def test_a_pickle_runs_nothing(self):
        with tempfile.TemporaryDirectory() as out:
            trace = os.path.join(out, "trace")
            data = pickle.dumps({"state_dict": {"decoder.conv_in.weight": Called(f"touch {trace}")}}, 2)
            with Folder({CKPT: with_pickle(data)}) as folder:
                refused(self, [CKPT], "inspect", "encode", "--model", folder, "--target-size", 64, "--image",
                        os.path.join(PICTURES, "plain3.png"))
            self.assertFalse(os.path.exists(trace))


class NumbersTest(unittest.TestCase):
    """Numbers that are none: in a file they are refused with tensor and place, in an answer with layer and position."""

    def test_weights(self):
        for bits, word in ((0x7fc0, "nan"), (0x7f80, "inf")):
            with self.subTest(word), Folder({SHARD: with_number(bits, first=70)}) as folder, tempfile.TemporaryDirectory() as out:
                words = [SHARD, DOWN, "number 70 of 11264"]
                ids = write_json(os.path.join(out, "ids.json"), [0, 9])
                refused(self, words, "inspect", "logits", "--model", folder, "--ids", ids, "--positions", 0, "--out", os.path.join(out, "l"))
                refused(self, words, "inspect", "generate", "--model", folder, "--prompt", "x", "--size", "64x64", "--stages", 3)
                refused(self, words, "--model", folder, "--http", "127.0.0.1:0", "--stages", 2, program="mgptd")

    def test_answers(self):
        """Weights of 3e38 are finite; what comes out of them is not. The first token already meets them."""
        words = ["position 0", "stop being finite", "unit '2'"]
        with Folder({SHARD: with_number(0x7f61, n=11264)}) as folder, tempfile.TemporaryDirectory() as out:
            ids = write_json(os.path.join(out, "ids.json"), [0, 9, 11])
            refused(self, words, "inspect", "logits", "--model", folder, "--ids", ids, "--positions", "1,2", "--out", os.path.join(out, "l"))
            refused(self, words, "inspect", "generate", "--model", folder, "--prompt", "x", "--size", "64x64")
            with Daemon(folder, "--stages", 2) as daemon:
                reply = daemon.generate(prompt="x", size="64x64")
                self.assertEqual(reply.status, 500, reply.body)
                message = reply.json()["error"]["message"]
                self.assertIn("position 0: numbers stop being finite in unit '2'", message)
                self.assertIn(message, daemon.log_text())
                self.assertEqual(daemon.get("/health").status, 200)
                self.assertEqual(daemon.gauge("mgpt:kv_cache_usage_perc"), 0)


# ---- pictures ----

NOISE = Image.effect_noise((64, 64), 99).convert("RGB")

def picture_bytes(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def lying_png(width, height):
    """A PNG of 64x64 pixels whose header says otherwise, with the right CRC."""
    raw = bytearray(picture_bytes(NOISE))
    raw[16:24] = struct.pack(">II", width, height)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    return bytes(raw)


WRONG_PICTURES = [
    ("empty", b"", ["empty"]),
    ("a text", b"no picture at all, but long enough", ["no PNG, JPEG or WebP"]),
    ("50,000 pixels wide", picture_bytes(Image.new("L", (50000, 1))), ["50000x1 pixels", "expected sides of 1 to"]),
    ("no pixels", lying_png(0, 64), ["PNG"]),
    ("a header of 2^31 rows", lying_png(64, 0x7fffffff), ["PNG"]),
    ("a header of 30,000 x 30,000", lying_png(30000, 30000), ["30000x30000 pixels", "expected at most"]),
    ("a header with more rows than there are", lying_png(64, 65), ["PNG"]),
    ("truncated PNG", picture_bytes(NOISE)[:5000], ["PNG"]),
    ("truncated JPEG", picture_bytes(NOISE, "JPEG")[:700], ["JPEG"]),
    ("truncated WebP", picture_bytes(NOISE, "WEBP")[:700], ["WebP"]),
]


class PictureTest(unittest.TestCase):
    def test_wrong_pictures(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, data, words in WRONG_PICTURES:
                with self.subTest(name):
                    path = os.path.join(folder, "stranger.png")
                    with open(path, "wb") as file:
                        file.write(data)
                    refused(self, [path] + words, "inspect", "encode", "--model", MODEL, "--image", path)

    def prompt(self, folder, paths):
        """The ids of a question with these pictures."""
        talk = write_json(os.path.join(folder, "talk.json"), {"images": paths, "qas": [["<|image|>" * len(paths) + "?", None]]})
        return mgpt_json("inspect", "prompt", "--model", MODEL, "--target-size", 64, "--conversation", talk, limit_s=LIMIT_S)

    def test_odd_pictures_are_read(self):
        """1x1, CMYK, 16 bit, animated (its first frame), and each EXIF orientation: turned, not refused."""
        with tempfile.TemporaryDirectory() as folder:
            one = os.path.join(folder, "one.png")
            Image.new("RGB", (1, 1), (9, 99, 200)).save(one)
            odd = [one] + [os.path.join(PICTURES, name) for name in ("cmyk.jpg", "grey16.png", "rgb16.png", "animated.png", "animated.webp")]
            turned = [os.path.join(PICTURES, f"turn{n}.png") for n in range(1, 9)]
            upright = []
            for path in turned:
                upright.append(os.path.join(folder, os.path.basename(path)))
                ImageOps.exif_transpose(Image.open(path)).save(upright[-1], exif=b"")
            self.assertTrue(self.prompt(folder, odd))
            self.assertEqual(self.prompt(folder, turned), self.prompt(folder, upright))


# ---- prompts and numbers of a request ----

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

    def test_a_text_with_nul_and_a_megabyte(self):
        for text in (b"a\0b", b"\0" * (1 << 20), b"a" * (1 << 20), "北".encode() * (1 << 18)):
            ids = mgpt_json("inspect", "tokenize", "--model", MODEL, data=text, limit_s=LIMIT_S)
            self.assertGreaterEqual(len(ids["ids"] if isinstance(ids, dict) else ids), 3)

    def test_wrong_sizes(self):
        for size, words in (("65x64", ["65"]), ("64x48", ["48"]), ("0x64", ["0"]), ("64x-64", ["--size"]), ("2048x2048", ["positions", "4096"]),
                            ("1e99x64", ["--size"]), ("99999999999x64", ["--size"])):
            with self.subTest(size):
                done = run("mgpt", "inspect", "generate", "--model", MODEL, "--prompt", "x", "--size", size, limit_s=LIMIT_S)
                text = done.stderr.decode()
                self.assertIn(done.returncode, (1, 2), text)
                for word in words:
                    self.assertIn(word, text)


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(MODEL, "--stages", 2).__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    def refusal(self, body, status=400):
        reply = self.daemon.request("POST", "/v1/images/generations", body)
        self.assertEqual(reply.status, status, reply.body[:300])
        error = reply.json()["error"]
        self.assertTrue({"message", "type", "param", "code"} <= set(error))
        self.assertEqual(error["type"], "invalid_request_error")
        return error

    def test_refusals_name_the_field(self):
        cases = [("prompt", value) for value in ("", None, 5, ["x"], "a" * 32001, "word " * 6000)]
        cases += [("n", value) for value in (0, 11, -1, 1e99, -1e99, 1.5, "1", True, [1])]
        cases += [("size", value) for value in ("65x64", "64x48", "48x64", "0x64", "-64x64", "64", "x", "", 64, "2048x2048",
                                                "99999999999999999999x32", "64x64x64", "64X64\u0000")]
        cases += [("seed", value) for value in (-1, 1.5, "x", 1e99)] + [("temperature", value) for value in (-1, "x", 1e99)]
        cases += [("guidance_scale", value) for value in (-1, "x", 1e99)] + [("image_top_k", value) for value in (-1, 1e99)]
        for field, value in cases:
            with self.subTest(field=field, value=str(value)[:40]):
                error = self.refusal({"prompt": "x", "size": "64x64", "n": 1, field: value})
                self.assertEqual(error["param"], field)
                self.assertTrue(error["message"])

    def test_bodies(self):
        for body, word in ((b"", "JSON"), (b"{", "JSON"), (b"[]", "object"), (b'{"prompt": "a\xff"}', "JSON"), (b"[" * 100000, "JSON"),
                           (b'{"prompt": "x", "n": 1e999}', "JSON"), (b'{"prompt": "\\ud800"}', "JSON"),
                           (b'{"prompt": "x", "prompt": "y"}', "prompt")):
            with self.subTest(body[:30]):
                self.assertIn(word, self.refusal(body)["message"])
        self.refusal(json.dumps({"prompt": "a" * 1000000}).encode())
        self.refusal(json.dumps({"prompt": "a" * (1 << 20)}).encode(), status=413)

    def test_texts_stay_texts(self):
        for prompt in (CONTROL, "a\0b", "\u202e\U0001f98a", "\\u0000%s%n"):
            reply = self.daemon.generate(prompt=prompt, size="64x64", seed=1, response_format="b64_json")
            self.assertEqual(reply.status, 200, reply.body[:300])
            self.assertEqual(reply.json()["usage"]["output_tokens"], 24)

    def test_paths_and_headers(self):
        for path in ("/v1/files/..%2f..%2fetc%2fpasswd", "/v1/files/" + "a" * 5000, "/%00", "/v1/images/generations/", "//"):
            self.assertIn(self.daemon.get(path).status, (400, 404, 414), path)
        reply = self.daemon.request("GET", "/health", headers={"X-Request-Id": "x" * 300})
        self.assertEqual(reply.status, 200)
        self.assertLess(len(reply.headers["X-Request-Id"]), 128)


# ---- who may ask, and what a process that was taken over may still do ----

KEY = "0123456789abcdef-test"


class KeyTest(unittest.TestCase):
    def test_others_need_a_key(self):
        """Loopback is the default; any other address without a key is refused before a worker starts."""
        for address in ("0.0.0.0:0", "[::]:0"):
            refused(self, ["--http " + address, "other machines", "--api-key"], "--model", MODEL, "--http", address, program="mgptd")
        done = run("mgpt-worker", "--connect", "tcp://192.0.2.1:9300", "--model", MODEL, limit_s=LIMIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("key", done.stderr.decode())
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            for text, mode, word in ((KEY, 0o644, "chmod 600"), ("short", 0o600, "16 to 256"), ("", 0o600, "16 to 256")):
                with open(path, "w") as file:
                    file.write(text)
                os.chmod(path, mode)
                refused(self, [path, word], "--model", MODEL, "--http", "127.0.0.1:0", "--api-key", path, program="mgptd")
                os.unlink(path)

    def test_requests_with_and_without_the_key(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(KEY + "\n")
            with Daemon(MODEL, "--api-key", path, "--http", "0.0.0.0:0") as daemon:
                daemon.address = daemon.address.replace("0.0.0.0", "127.0.0.1")
                body = {"prompt": "x", "size": "64x64", "seed": 1}
                for value in (None, "Bearer ", "Bearer " + KEY[:-1], "Bearer " + KEY + "x", "Basic " + KEY, KEY):
                    reply = daemon.request("POST", "/v1/images/generations", body, {"Authorization": value} if value else None)
                    self.assertEqual(reply.status, 401, value)
                    self.assertEqual(reply.json()["error"]["code"], "invalid_api_key")
                    self.assertEqual(daemon.get("/metrics").status, 401)
                self.assertEqual(daemon.get("/health").status, 200)
                reply = daemon.request("POST", "/v1/images/generations", body, {"Authorization": "Bearer " + KEY})
                self.assertEqual(reply.status, 200, reply.body[:300])
                out = os.path.join(folder, "x.png")
                done = run("mgpt", "generate", "x", "--url", "http://" + daemon.address, "--size", "64x64", "-o", out, env={"MGPT_API_KEY": KEY})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn(KEY, daemon.log_text())


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


class ConfinedTest(unittest.TestCase):
    def test_daemon_and_workers_are_confined_unless_told(self):
        for options, mode in (((), "2"), (("--no-confine",), "0")):
            with Daemon(MODEL, "--stages", 2, *options) as daemon:
                if "not confined" in daemon.log_text():
                    self.skipTest("no seccomp here, or a build with a sanitizer")
                self.assertEqual(status_of(daemon.process.pid)["Seccomp"], mode)
                for pid in daemon.children():
                    self.assertEqual(status_of(pid)["Seccomp"], "2")
                    self.assertEqual(int(status_of(pid)["CapEff"], 16) & ~0b110, 0)
                    self.assertEqual(status_of(pid)["NoNewPrivs"], "1")


if __name__ == "__main__":
    unittest.main()
