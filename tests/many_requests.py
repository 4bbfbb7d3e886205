"""Requests of mixed sizes and options, each alone and all of them through one mgptd: the pictures must be equal."""
import concurrent.futures
import os
import random
import tempfile

from daemon_process import Daemon, in_parallel, wait_for_an_empty_cache
from harness import GOLDENS, mgpt

MODEL = GOLDENS[0].model
SEED = 11  # of the mix


def mixed_requests(n):
    """n requests of mixed sizes, guidance, top-k and seeds; the same for the same n."""
    draw = random.Random(SEED)
    return [{"prompt": draw.choice(["a red fox", "two cats", "naïve café", "snow"]) + f" {i}",
             "size": draw.choice(["64x64", "96x64", "32x128", "128x128"]), "seed": draw.randrange(2 ** 32),
             "guidance_scale": draw.choice([1.0, 3.0, 4.0]), "image_top_k": draw.choice([50, 2000])} for i in range(n)]


def alone(request):
    """The picture that inspect generate makes of a request in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "alone.png")
        mgpt("inspect", "generate", "--model", MODEL, "--prompt", request["prompt"], "--size", request["size"], "--seed", request["seed"],
             "--guidance", request["guidance_scale"], "--image-top-k", request["image_top_k"], "-o", out)
        with open(out, "rb") as file:
            return file.read()


def all_alone(requests):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(alone, requests))


def check_equal(test, requests, expected, *options):
    """All requests at once through a daemon with these options give the pictures expected of each, and free their memory."""
    with Daemon(MODEL, *options) as daemon:
        got = in_parallel([lambda r=r: daemon.picture(**r) for r in requests])
        for index, (mine, theirs) in enumerate(zip(got, expected)):
            test.assertEqual(mine, theirs, f"request {index} of seed {SEED}: {requests[index]}")
        wait_for_an_empty_cache(test, daemon)
