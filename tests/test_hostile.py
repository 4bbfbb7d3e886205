"""Goal: whatever a stranger's checkpoint, picture or request holds, the programs answer with one clear refusal: exit 1 or HTTP 400,
naming what is wrong and what was expected, in bounded time and memory. The unit tests beside the parsers have many more cases; these go
through the built programs, so that no way around a check is left. Each spoilt folder is the golden one but for one file.
What users type is in test_hostile_typed.py, what comes by HTTP in test_hostile_http.py.
"""
import io
import json
import math
import os
import pickle
import struct
import subprocess
import tempfile
import unittest
import warnings
import zipfile
import zlib

import numpy
from PIL import Image, ImageOps

from daemon_process import Daemon, wait_for_an_empty_cache
from harness import BIN, mgpt_json, write_json, write_tensors
from hostile import LIMIT_S, MODEL, NO_FILES, PICTURES, Folder, golden, refused

SHARD = "model-00002-of-00003.safetensors"
LAST_SHARD = "model-00003-of-00003.safetensors"
INDEX = "model.safetensors.index.json"
CKPT = "tokenizer/vqgan.ckpt"
YAML = "tokenizer/vqgan.yaml"


# ---- files of a checkpoint ----

def shard(change=lambda header, data: None, length=None, tail=b"", keep=None, name=SHARD):
    """A shard with its header changed, or its data in place (a bytearray); `length` is what the file says of its header."""
    raw = golden(name)
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + n]), bytearray(raw[8 + n:])
    text = change(header, data) or json.dumps(header).encode()
    return (struct.pack("<Q", len(text) if length is None else length) + text + bytes(data) + tail)[:keep]


DOWN = "model.layers.2.mlp.down_proj.weight"


def with_entry(**fields):
    return shard(lambda header, _: header[DOWN].update(fields))


def with_number(bits, first=0, n=1, tensor=DOWN, name=SHARD):
    """A shard with n numbers of a tensor set to these 16 bits of BF16."""
    def change(header, data):
        start = header[tensor]["data_offsets"][0] + 2 * first
        data[start:start + 2 * n] = struct.pack("<H", bits) * n
    return shard(change, name=name)


def renamed(header, _):
    header["stranger"] = header.pop(DOWN)


def moved(header, data):
    """All tensors 16 bytes further on: nothing names the first 16."""
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 16 for offset in entry["data_offsets"]]
    data.extend(bytes(16))


BIAS = "model.layers.2.mlp.down_proj.bias"


def with_bias(header, data):
    header[BIAS] = {"dtype": "BF16", "shape": [64], "data_offsets": [len(data), len(data) + 128]}
    data.extend(bytes(128))


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
    ("fewer layers than there are", {"config.json": config(num_hidden_layers=2)}, ["tensor 'model.layers.", "'num_hidden_layers' of config.json is 2"]),
    ("a bias that config.json has not", {SHARD: shard(with_bias), INDEX: index(**{BIAS: SHARD})}, [SHARD, BIAS, "'mlp_bias' of config.json is false"]),
    ("more layers than there are", {"config.json": config(num_hidden_layers=9)}, ["no tensor 'model.layers."]),
    ("another RoPE", {"config.json": config(rope_scaling={"type": "dynamic", "factor": 2})},
     ["config.json", "'rope_scaling.type'", "'dynamic'", "'linear'"]),
    ("another vocabulary size", {"config.json": config(vocab_size=10241)}, ["model.embed_tokens.weight", "[10240, 64]", "expected [10241, 64]"]),
    ("a tensor in two shards", {LAST_SHARD: golden(SHARD)}, [SHARD, LAST_SHARD, "expected in one"]),
    ("header longer than the file", {SHARD: struct.pack("<Q", 1000) + b"{}"}, [SHARD, "1000", "only 2 bytes follow"]),
    ("header of all ones", {SHARD: b"\xff" * 8 + b"{}"}, [SHARD, "18446744073709551615", "at most"]),
    ("unnamed bytes", {SHARD: shard(moved)}, [SHARD, "byte 16", "expected 0", "hole"]),
    ("a type nothing computes with", {SHARD: with_entry(dtype="I64", shape=[64, 44])}, [SHARD, DOWN, "I64", "expected BF16"]),
    ("shape of a text", {SHARD: with_entry(shape="64")}, [SHARD, DOWN, "'shape'", "'64'", "array"]),
    ("shape of real numbers", {SHARD: with_entry(shape=[64.0, 176])}, [SHARD, DOWN, "'shape'", "64.0", "integers"]),
    ("offsets that go back", {SHARD: with_entry(data_offsets=[22528, 0])}, [SHARD, DOWN, "22528 to 0"]),
    ("offsets of 2^63 - 1", {SHARD: with_entry(data_offsets=[0, (1 << 63) - 1])}, [SHARD, DOWN, str((1 << 63) - 1)]),
    ("metadata of numbers", {SHARD: shard(lambda h, _: h.update(__metadata__={"a": 1}))}, [SHARD, "'__metadata__.a' is 1", "a string"]),
    ("index places a tensor elsewhere", {INDEX: index(**{DOWN: LAST_SHARD})}, [INDEX, DOWN, f"'{LAST_SHARD}'", f"it is in '{SHARD}'"]),
    ("index places a tensor in a number", {INDEX: index(**{DOWN: 2})}, [INDEX, DOWN, "placed in 2", "expected the name of"]),
    ("index names a stranger", {INDEX: index(stranger=SHARD)}, [INDEX, SHARD, "no tensor 'stranger'"]),
    ("index of 1000 files", {INDEX: json.dumps({"weight_map": {f"t{i}": f"{i}.safetensors" for i in range(1000)}}).encode()}, [INDEX, "more than 512"]),
] + [(f"{field} is {value!r}", {"config.json": config(**{field: value})}, ["config.json", f"'{field}' is", "expected"])
     for field in ("hidden_size", "num_hidden_layers", "vocab_size", "num_key_value_heads", "max_position_embeddings")
     for value in (-1, -0.0, 1.5, "64", True, [64], 1 << 62, 1e99)]

# ---- JSON that is none, and things that are no files, in the place of each file ----

INSPECT, TOKENIZE = ("inspect", "checkpoint", None), ("inspect", "tokenize", "--model", None)  # None: the folder
ENCODE = ("inspect", "encode", "--model", None, "--target-size", 64, "--image", os.path.join(PICTURES, "plain3.png"))
READERS = {"config.json": INSPECT, INDEX: INSPECT, SHARD: INSPECT, "tokenizer.json": TOKENIZE, "mgpt.json": TOKENIZE, CKPT: ENCODE, YAML: ENCODE}

NO_JSON = [
    ("empty", lambda good: b"", ["no JSON", "empty"]),
    ("a byte order mark", lambda good: b"\xef\xbb\xbf" + good, ["no JSON", "byte order mark"]),
    ("UTF-16", lambda good: good.decode().encode("utf-16"), ["no JSON"]),
    ("something behind it", lambda good: good + b" x", ["no JSON", "end of file expected"]),
    ("NUL behind it", lambda good: good + b"\0", ["no JSON", "end of file expected"]),
    ("half of it", lambda good: good[:len(good) // 2], ["no JSON"]),
    ("a list", lambda good: b"[]", ["an array of 0", "expected an object"]),
    ("nested lists", lambda good: b"[" * 60000, ["no JSON", "maximum parsing depth"]),
    ("nested objects", lambda good: b'{"a":' * 12000, ["no JSON", "maximum parsing depth"]),
    ("a key twice", lambda good: good.rstrip()[:-1] + b', "zz": 1, "zz": 1}', ["no JSON", "duplicate", "zz"]),
    ("half a surrogate", lambda good: good.rstrip()[:-1] + b', "zz": "\\ud800"}', ["no JSON", "D800"]),
    ("a number of 99 digits", lambda good: good.rstrip()[:-1] + b', "zz": ' + b"9" * 99 + b"}", ["no JSON", "too big integer"]),
    ("10^999", lambda good: good.rstrip()[:-1] + b', "zz": 1e999}', ["no JSON", "overflow"]),
    ("NaN", lambda good: good.rstrip()[:-1] + b', "zz": NaN}', ["no JSON", "NaN"]),
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
    ("a regex that backtracks for ever", tokenizer(regex("(a+)+$")), ["regex '(a+)+$' needs more than", "steps"], b"a" * 4000 + b"b"),
    ("a regex that recurses for ever", tokenizer(regex("(?R)*")), ["regex '(?R)*'"], b"aaa"),
    ("a regex of 10^9 parts", tokenizer(regex("(((a{1000}){1000}){1000})")), ["too large"], b"a"),
    ("a text that grows with each step", tokenizer(lambda t: t.update(pre_tokenizer={
        "type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "use_regex": False}] * 60})), ["grows over"], b"\0" * 1000),
    ("an added token with another's id", tokenizer(lambda t: t["added_tokens"].append(dict(t["added_tokens"][0], content="stranger"))), ["id 0", "'<s>'", "'stranger'"], b"a"),
    ("a merge that is a number", tokenizer(lambda t: t["model"]["merges"].insert(0, 1)), ["merge 0: 1", "expected"], b"a"),
    ("an added token twice", tokenizer(lambda t: t["added_tokens"].append(dict(t["added_tokens"][0], id=9))), ["'<s>' has id 9 here"], b"a"),
    ("a long added token", tokenizer(lambda t: t["added_tokens"].append(dict(t["added_tokens"][0], content="z" * 2000, id=10241))), ["2000", "1024"], b"a"),
] + [(f"{field} is {value!r}", tokenizer(lambda t, field=field, value=value: t.update({field: value})), ["tokenizer.json", "expected"], b"a")
     for field in ("added_tokens", "model", "pre_tokenizer", "decoder", "normalizer") for value in (0, "x", True, [1], {"type": 1})] + [
    (f"model.{field} is {value!r}", tokenizer(lambda t, field=field, value=value: t["model"].update({field: value})),
     ["tokenizer.json", field, "expected"], b"a")
    for field, value in (("vocab", []), ("merges", {}), ("type", 1), ("unk_token", 1), ("dropout", "0.1"), ("fuse_unk", "x"),
                         ("byte_fallback", 1), ("continuing_subword_prefix", 1), ("end_of_word_suffix", ["x"]))]


def rezip(change_entry=lambda name, data: data, method=zipfile.ZIP_STORED):
    """vqgan.ckpt with entries changed by name; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(golden(CKPT))) as old, zipfile.ZipFile(out, "w", method) as new:
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


FIRST_TENSOR = "encoder.conv_in.weight"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def state(name, value):
    """A pickle of {"state_dict": {name: value}}; value: the operations that make it."""
    return b"}" + text(b"state_dict") + b"}" + text(name.encode()) + value + b"ss."


def tensor(size, stride, offset=0, key=b"0", n=864, kind=b"FloatStorage"):
    """One tensor as torch writes it, but for what the arguments say."""
    storage = b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu") + number(n) + b"tQ"
    return state(FIRST_TENSOR, b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(size) + numbers(stride) + b"\x89NtR")


def with_first_number(value, n=1):
    return lambda name, data: struct.pack("<f", value) * n + data[4 * n:] if name.endswith("data/0") else data


def twice():
    """vqgan.ckpt with a second entry of the first one's name."""
    out = io.BytesIO(golden(CKPT))
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(archive.infolist()[0].filename, b"N.")
    return out.getvalue()


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
    ("persistent id that is no storage", {CKPT: with_pickle(state(FIRST_TENSOR, b"X\1\0\0\0aQ"))}, [CKPT, FIRST_TENSOR, "an object of another class"]),
    ("an object that builds itself", {CKPT: with_pickle(state(FIRST_TENSOR, b"cos\nsystem\n)R}X\1\0\0\0aNsb"))}, [CKPT, FIRST_TENSOR, "another class"]),
    ("a tensor of negative size", {CKPT: with_pickle(tensor([-32, 3, 3, 3], [27, 9, 3, 1]))}, [CKPT, FIRST_TENSOR, "size has -32", "at least 0"]),
    ("a tensor of another shape", {CKPT: with_pickle(tensor([64, 3, 3, 3], [27, 9, 3, 1]))}, [CKPT, FIRST_TENSOR, "[64, 3, 3, 3], expected [32, 3, 3, 3]"]),
    ("a tensor beyond its storage", {CKPT: with_pickle(tensor([32, 3, 3, 3], [28, 9, 3, 1]))}, [CKPT, FIRST_TENSOR, "past its storage of 864"]),
    ("a tensor from 2^62 on", {CKPT: with_pickle(tensor([32, 3, 3, 3], [27, 9, 3, 1], offset=1 << 62))}, [CKPT, FIRST_TENSOR, "past its storage"]),
    ("strides of 2^62", {CKPT: with_pickle(tensor([32, 3, 3, 3], [1 << 62, 1 << 62, 3, 1]))}, [CKPT, FIRST_TENSOR, "past its storage"]),
    ("a storage outside the folder", {CKPT: with_pickle(tensor([32, 3, 3, 3], [27, 9, 3, 1], key=b"../0"))}, [CKPT, FIRST_TENSOR, "no entry 'data/../0'"]),
    ("a storage of 2^62 numbers", {CKPT: with_pickle(tensor([32, 3, 3, 3], [27, 9, 3, 1], n=1 << 62))}, [CKPT, FIRST_TENSOR, str(1 << 62)]),
    ("a storage of another type", {CKPT: with_pickle(tensor([32, 3, 3, 3], [27, 9, 3, 1], kind=b"LongStorage"))}, [CKPT, "LongStorage", "expected FloatStorage"]),
    ("a pickle that goes on", {CKPT: rezip(lambda name, data: data + b"x" if name.endswith("data.pkl") else data)}, [CKPT, "data.pkl", "1 bytes behind"]),
    ("half a pickle", {CKPT: rezip(lambda name, data: data[:9999] if name.endswith("data.pkl") else data)}, [CKPT, "data.pkl", "past the end"]),
    ("a pickle of the future", {CKPT: with_pickle(b"\x80\x09}.")}, [CKPT, "data.pkl", "protocol", "at most 5"]),
    ("2 million operations", {CKPT: with_pickle(b"N0" * 1100000 + b"N.")}, [CKPT, "data.pkl", "too many operations", "2097152"]),
    ("300 MB of zeros in 300 KB", {CKPT: rezip(lambda name, data: bytes(300 << 20) if name.endswith("data.pkl") else data, zipfile.ZIP_DEFLATED)},
     [CKPT, "data.pkl", str(300 << 20), "at most"]),
    ("two entries of one name", {CKPT: twice()}, [CKPT, "two entries"]),
    ("a weight that is no number", {CKPT: rezip(with_first_number(math.nan))}, [CKPT, FIRST_TENSOR, "number 0 of 864 is not finite"]),
    ("weights that blow up", {CKPT: rezip(with_first_number(3e38, n=864))}, ["encoder's output is not finite"]),
    ("YAML behind YAML", {YAML: golden(YAML) + b"---\n" + golden(YAML)}, [YAML, "one document"]),
    ("a tag that calls", {YAML: golden(YAML).replace(b"ch: 32", b"ch: !!python/object/apply:os.system [ls]")}, [YAML, "ddconfig.ch'", "one integer"]),
    ("a width as text", {YAML: golden(YAML).replace(b"ch: 32", b'ch: "32"')}, [YAML, "ddconfig.ch'", "without quotes"]),
    ("a width with NUL", {YAML: golden(YAML).replace(b"ch: 32", b'ch: "3\\0"')}, [YAML, "NUL"]),
    ("20,000 values", {YAML: b"a: [" + b"1," * 30000 + b"]\n" + golden(YAML)}, [YAML, "more than 20000"]),
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

    def test_no_json(self):
        """In config, index, header of a shard, tokenizer and our own file."""
        for name, spoil, words in NO_JSON:
            for file in ("config.json", INDEX, SHARD, "tokenizer.json", "mgpt.json"):
                good = b'{"target_size": 64}' if file == "mgpt.json" else golden(file)
                if file == SHARD:
                    data = shard(lambda header, _: spoil(json.dumps(header).encode()) or b" ")
                else:
                    data = spoil(good)
                if file == "mgpt.json" and len(data) > 65536 or file == SHARD and name == "empty":
                    continue
                with self.subTest(name, file=file), Folder({file: data}) as folder:
                    refused(self, [file] + words, *[folder if a is None else a for a in READERS[file]], data=b"a")

    def test_no_files(self):
        for name, make, words in NO_FILES:
            for file, command in READERS.items():
                with self.subTest(name, file=file), Folder({file: make}) as folder:
                    refused(self, [file] + words, *[folder if a is None else a for a in command], data=b"a")

    def test_memory_is_bounded(self):
        """64 MB of JSON that would become 5 GB; 100 million pixels take what they take, not more."""
        bomb = b'{"a": [' + b"{}," * ((60 << 20) // 3) + b"{}]}"
        with Folder({"tokenizer.json": bomb}) as folder, open(os.devnull) as nothing:
            process = subprocess.Popen([os.path.join(BIN, "mgpt"), "inspect", "tokenize", "--model", folder], stdin=nothing,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            said = process.stderr.read().decode()
            process.stdout.close()
            process.stderr.close()
            _, code, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
            self.assertEqual(process.returncode, 1, said)
            self.assertIn("values, expected at most", said)
            self.assertLess(used.ru_maxrss, 500 << 10)  # KiB; a sanitizer doubles it

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
        for name, files, words in CODECS:
            with self.subTest(name), Folder(files) as folder:
                refused(self, words, *[folder if a is None else a for a in ENCODE])

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
        words = ["position 0", "stop being finite in layer 2"]
        with Folder({SHARD: with_number(0x7f61, n=11264)}) as folder, tempfile.TemporaryDirectory() as out:
            ids = write_json(os.path.join(out, "ids.json"), [0, 9, 11])
            refused(self, words, "inspect", "logits", "--model", folder, "--ids", ids, "--positions", "1,2", "--out", os.path.join(out, "l"))
            refused(self, words, "inspect", "generate", "--model", folder, "--prompt", "x", "--size", "64x64")
            for stages in (1, 2):
                with self.subTest(stages=stages), Daemon(folder, "--stages", stages) as daemon:
                    reply = daemon.generate(prompt="x", size="64x64")
                    self.assertEqual(reply.status, 500, reply.body)
                    message = reply.json()["error"]["message"]
                    self.assertIn("position 0: numbers stop being finite ", message)
                    if stages == 1:  # of two, the last may answer before the one that knows the layer; the log has both
                        self.assertIn("in layer 2", message)
                    self.assertIn(message, daemon.log_text())
                    self.assertEqual(daemon.get("/health").status, 200)
                    wait_for_an_empty_cache(self, daemon)

    def test_logits(self):
        """A head of 3e38: the logits are what is not finite."""
        with Folder({LAST_SHARD: with_number(0x7f61, n=10240 * 64, tensor="lm_head.weight", name=LAST_SHARD)}) as folder:
            refused(self, ["position", "the logits are not finite"], "inspect", "generate", "--model", folder, "--prompt", "x", "--size", "64x64")

    def test_logits_of_a_file(self):
        with tempfile.TemporaryDirectory() as out:
            path = os.path.join(out, "l.safetensors")
            logits = numpy.zeros((1, 10240))
            logits[0, 100] = math.nan
            write_tensors(path, {"logits": logits})
            refused(self, ["id 100 is not a number"], "inspect", "sample", "--model", MODEL, "--logits", path, "--image-top-k", 2000, "--seeds", 1)


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


def lying_jpeg(width, height, **options):
    raw = bytearray(picture_bytes(NOISE, "JPEG", **options))
    at = raw.index(b"\xff\xc2" if options else b"\xff\xc0")
    raw[at + 5:at + 9] = struct.pack(">HH", height, width)
    return bytes(raw)


def many_scans():
    """A progressive JPEG whose last scan comes 100 times: each costs a pass over all pixels."""
    raw = picture_bytes(NOISE, "JPEG", progressive=True)
    scan = raw[raw.rindex(b"\xff\xda"):-2]
    return raw[:-2] + 100 * scan + raw[-2:]


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
    ("truncated lossless WebP", picture_bytes(NOISE, "WEBP", lossless=True)[:700], ["WebP"]),
    ("a WebP of 16384 x 16384", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0", ["WebP"]),
    ("a WebP that says it is longer", picture_bytes(NOISE, "WEBP")[:4] + b"\xff\xff\xff\x7f" + picture_bytes(NOISE, "WEBP")[8:], ["WebP"]),
    ("a GIF", picture_bytes(NOISE, "GIF"), ["no PNG, JPEG or WebP", "47 49 46 38"]),
    ("a TIFF", picture_bytes(NOISE, "TIFF"), ["no PNG, JPEG or WebP", "49 49 2a 00"]),
    ("a JPEG of 10,000 x 10,000", lying_jpeg(10000, 10000), ["JPEG", "premature end"]),
    ("a progressive JPEG of 10,000 x 10,000", lying_jpeg(10000, 10000, progressive=True), ["JPEG", "premature end"]),
    ("a JPEG of 20,000 x 20,000", lying_jpeg(20000, 20000), ["20000x20000 pixels", "expected at most"]),
    ("a JPEG without pixels", lying_jpeg(0, 0), ["JPEG", "Empty"]),
    ("a JPEG of 110 scans", many_scans(), ["JPEG", "more than 64 scans"]),
]


class PictureTest(unittest.TestCase):
    def test_wrong_pictures(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "stranger.png")
            for name, data, words in WRONG_PICTURES:
                with self.subTest(name):
                    with open(path, "wb") as file:
                        file.write(data)
                    refused(self, [path] + words, "inspect", "encode", "--model", MODEL, "--image", path)
            os.unlink(path)
            for name, make, words in NO_FILES:
                with self.subTest(name):
                    make(path)
                    refused(self, [path] + words, "inspect", "encode", "--model", MODEL, "--image", path)
                    os.rmdir(path) if os.path.isdir(path) else os.unlink(path)

    def prompt(self, folder, paths):
        """The ids of a question with these pictures."""
        talk = write_json(os.path.join(folder, "talk.json"), {"images": paths, "qas": [["<|image|>" * len(paths) + "?", None]]})
        return mgpt_json("inspect", "prompt", "--model", MODEL, "--target-size", 64, "--conversation", talk, limit_s=LIMIT_S)

    def test_odd_pictures_are_read(self):
        """1x1, CMYK, 16 bit, animated (its first frame), and each EXIF orientation: turned, not refused."""
        with tempfile.TemporaryDirectory() as folder:
            one = os.path.join(folder, "one.png")
            Image.new("RGB", (1, 1), (9, 99, 200)).save(one)
            odd = [one] + [os.path.join(PICTURES, name) for name in ("cmyk.jpg", "grey16.png", "rgb16.png", "animated.png", "animated.webp",
                                                                     "interlaced.png", "palette_transparent.png", "progressive.jpg", "lossless4.webp")]
            turned = [os.path.join(PICTURES, f"turn{n}.png") for n in range(1, 9)]
            for n in range(1, 9):  # the same of WebP, which keeps each pixel, too
                turned.append(os.path.join(folder, f"turn{n}.webp"))
                exif = Image.Exif()
                exif[0x0112] = n
                NOISE.crop((0, 0, 48, 32)).save(turned[-1], lossless=True, exif=exif)
            upright = []
            for path in turned:
                upright.append(os.path.join(folder, "up-" + os.path.basename(path) + ".png"))
                ImageOps.exif_transpose(Image.open(path)).save(upright[-1], exif=b"")
            self.assertTrue(self.prompt(folder, odd))
            self.assertEqual(self.prompt(folder, turned), self.prompt(folder, upright))


if __name__ == "__main__":
    unittest.main()
