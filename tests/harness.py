"""What the process tests share: where the programs are, how to run them, golden data."""
import json
import os
import struct
import subprocess

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("MGPT_BUILD", os.path.join(ROOT, "build"))
BIN = os.path.join(BUILD, "bin")
GOLDEN = os.path.join(ROOT, "tests", "golden")
RUN_LIMIT_S = 300  # one command of a test; far above what any needs, so only a hang meets it


# The same tests on another device, in another number of stages: for commands that have such options and were not given them.
DEVICE, STAGES = os.environ.get("MGPT_TEST_DEVICE"), os.environ.get("MGPT_TEST_STAGES")


def with_device(args):
    more = []
    what = args[1] if len(args) > 1 and args[0] == "inspect" else None
    if DEVICE and what in ("generate", "logits", "encode", "decode", "prompt", "sample") and "--device" not in args:
        more += ["--device", DEVICE]
    if STAGES and what in ("generate", "logits") and "--stages" not in args and "--cut" not in args:
        more += ["--stages", STAGES]
    return [*args, *more]


class CommandFailed(AssertionError):
    """A program that was expected to succeed did not."""


def run(program, *args, data=None, env=None, limit_s=RUN_LIMIT_S):
    """Runs a program of the build to its end; returns the CompletedProcess with bytes in stdout and stderr."""
    return subprocess.run([os.path.join(BIN, program), *map(str, args)], input=data, stdin=None if data is not None else subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit_s,
                          env=dict(os.environ, **env) if env else None)


def mgpt(*args, **more):
    """Runs mgpt, which must succeed; returns its stdout."""
    done = run("mgpt", *with_device(args), **more)
    if done.returncode:
        raise CommandFailed(f"mgpt {' '.join(map(str, args))[:300]}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-800:]}")
    return done.stdout


def mgpt_json(*args, **more):
    return json.loads(mgpt(*args, **more))


def refused(test, code, *args, **more):
    """mgpt must end with this exit code, say one clear thing on stderr and nothing on stdout; returns stderr's text."""
    done = run("mgpt", *args, **more)
    text = done.stderr.decode(errors="replace")
    test.assertEqual(done.returncode, code, text)
    test.assertEqual(done.stdout, b"")
    test.assertTrue(text.strip(), "an error without a word")
    return text


def read_tensors(path):
    """The f32 tensors of a safetensors file by name."""
    with open(path, "rb") as file:
        raw = file.read()
    header_bytes = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8:8 + header_bytes]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", entry["dtype"]
        start, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(raw[8 + header_bytes + start:8 + header_bytes + end], "<f4").reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    """Writes f32 tensors by name as a safetensors file."""
    header, blobs, offset = {}, [], 0
    for name, value in tensors.items():
        blob = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file)
    return path


class Golden:
    """The public reference's answers for one checkpoint of random weights."""

    def __init__(self, name):
        self.name = name
        self.model = os.path.join(GOLDEN, name, "model")
        self.folder = os.path.join(GOLDEN, name, "cases")
        with open(os.path.join(self.folder, "cases.json")) as file:
            self.cases = json.load(file)

    def path(self, file):
        return os.path.join(self.folder, file)

    def conversation(self, folder, value):
        """Writes a conversation file whose pictures are named by full path."""
        return write_json(os.path.join(folder, "conversation.json"),
                          {"images": [self.path(f) for f in value["images"]], "qas": value["qas"]})


GOLDENS = [Golden(name) for name in ("v7b", "v34b")]
