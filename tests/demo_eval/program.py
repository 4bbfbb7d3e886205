"""The built program as a backend of tasks.py: `mgpt inspect ...` for everything, or a running mgptd for drawing.

In:  the build folder and a checkpoint folder.  Out: pictures, answers.
Each `mgpt inspect` loads the model anew, which is exact but slow; with `daemon=True` one mgptd is started and
text-to-image requests are posted to it, many at once.
"""
import base64
import concurrent.futures
import http.client
import io
import json
import os
import signal
import subprocess
import tempfile
import threading
import numpy as np
from PIL import Image

RUN_LIMIT_S, START_LIMIT_S, REPLY_LIMIT_S = 600, 300, 1800
DENSE = {"segmentation": "Segmentic segmentation. <|image|>", "depth": "Depth estimation. <|image|>",
         "normals": "Surface normal estimation. <|image|>"}
FROM_MAP = "Generate an image according to the provided image, and according to the following caption:\n{} <|image|>"
RECOGNITION = ("--guidance", 1, "--image-top-k", 200)       # what the published model uses for maps


class Program:
    """Backend over BUILD/bin; guidance and top_k None: what the checkpoint's mgpt.json says."""

    def __init__(self, build, model, guidance=None, top_k=None, compute="bf16", at_once=2, daemon=False):
        self.bin, self.model, self.compute, self.at_once = os.path.join(build, "bin"), model, compute, at_once
        self.guidance, self.top_k, self.folder = guidance, top_k, tempfile.TemporaryDirectory()
        self.daemon = Daemon(self.bin, model) if daemon else None
        self.made, self.lock = 0, threading.Lock()

    def close(self):
        if self.daemon:
            self.daemon.stop()
        self.folder.cleanup()

    def path(self, ending):
        with self.lock:
            self.made += 1
            return os.path.join(self.folder.name, f"{self.made}{ending}")

    def run(self, *args):
        done = subprocess.run([os.path.join(self.bin, "mgpt"), "inspect", *map(str, args)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=RUN_LIMIT_S)
        if done.returncode:
            raise RuntimeError(f"mgpt inspect {' '.join(map(str, args))[:300]}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None     # decode has nothing to say

    def each(self, work, items):
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(work, items))

    def sampling(self, guidance, top_k):
        guidance, top_k = self.guidance if guidance is None else guidance, self.top_k if top_k is None else top_k
        return (() if guidance is None else ("--guidance", guidance)) + (() if top_k is None else ("--image-top-k", top_k))

    def generate(self, *args):
        """`inspect generate` that ends in a picture."""
        out = self.path(".png")
        self.run("generate", "--model", self.model, "--compute", self.compute, "-o", out, *args)
        return read(out)

    # The tasks ---------------------------------------------------------------------------------------------

    def draw(self, captions, size, guidance=None, top_k=None):
        if self.daemon:
            guidance, top_k = self.guidance if guidance is None else guidance, self.top_k if top_k is None else top_k
            return self.daemon.draw(captions, size, guidance, top_k)
        options = self.sampling(guidance, top_k)
        return self.each(lambda job: self.generate("--prompt", job[1], "--size", f"{size[0]}x{size[1]}", "--seed", job[0], *options), enumerate(captions))

    def picture_answer(self, seed, question, picture, options):
        conversation, size = self.conversation(picture, [[question, None]]), f"{picture.shape[1]}x{picture.shape[0]}"
        return self.generate("--conversation", conversation, "--size", size, "--seed", seed, *target(picture), *options)

    def map(self, kind, pictures):
        return self.each(lambda job: self.picture_answer(job[0], DENSE[kind], job[1], RECOGNITION), enumerate(pictures))

    def from_map(self, captions, maps):
        options = self.sampling(None, None)
        return self.each(lambda job: self.picture_answer(job[0], FROM_MAP.format(job[1][0]), job[1][1], options), enumerate(zip(captions, maps)))

    def ask(self, asked):
        def one(job):
            picture, turns = job
            conversation = self.conversation(picture, [[q, a] for q, a in turns])
            return self.run("generate", "--model", self.model, "--compute", self.compute, "--conversation", conversation,
                            "--temperature", 0, *target(picture))["text"].strip()
        return self.each(one, asked)

    def round_trip(self, pictures):
        def one(picture):
            file, ids, out = self.path(".png"), self.path(".json"), self.path(".png")
            Image.fromarray(picture).save(file)
            got = self.run("encode", "--model", self.model, "--image", file, *target(picture))
            with open(ids, "w") as f:
                json.dump(got["ids"], f)
            self.run("decode", "--model", self.model, "--ids", ids, "-o", out)
            return read(out)
        return self.each(one, pictures)

    def conversation(self, picture, turns):
        image, file = self.path(".png"), self.path(".json")
        Image.fromarray(picture).save(image)
        with open(file, "w") as f:
            json.dump({"images": [image], "qas": turns}, f)
        return file


def read(path):
    with Image.open(path) as im:
        return np.asarray(im.convert("RGB"))


def target(picture):
    """The target size whose list of sizes holds this picture's size, so that it is not scaled on its way in."""
    area = picture.shape[0] * picture.shape[1] // 1024
    side = next(s for s in range(1, 64) if s * s >= area)
    return ("--target-size", side * 32)


class Daemon:
    """One mgptd on a free port; text-to-image requests, `at_once` of them in flight."""

    def __init__(self, folder, model, at_once=32):
        self.at_once, self.log = at_once, tempfile.TemporaryFile()
        self.process = subprocess.Popen([os.path.join(folder, "mgptd"), "--model", model, "--http", "127.0.0.1:0"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        timer = threading.Timer(START_LIMIT_S, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()       # printed once every worker is loaded
        timer.cancel()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"mgptd did not start: {self.log.read().decode(errors='replace')[-1000:]}")
        self.address = json.loads(line)["http"].removeprefix("http://")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def post(self, value):
        link = http.client.HTTPConnection(self.address, timeout=REPLY_LIMIT_S)
        try:
            link.request("POST", "/v1/images/generations", json.dumps(value), {"Content-Type": "application/json"})
            reply = link.getresponse()
            body = reply.read()
            if reply.status != 200:
                raise RuntimeError(f"/v1/images/generations: {reply.status} {body[:300]!r}")
            return read(io.BytesIO(base64.b64decode(json.loads(body)["data"][0]["b64_json"])))
        finally:
            link.close()

    def draw(self, captions, size, guidance, top_k):
        more = {k: v for k, v in (("guidance_scale", guidance), ("image_top_k", top_k)) if v is not None}
        jobs = [{"prompt": c, "size": f"{size[0]}x{size[1]}", "seed": i, "response_format": "b64_json", **more} for i, c in enumerate(captions)]
        with concurrent.futures.ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(self.post, jobs))
