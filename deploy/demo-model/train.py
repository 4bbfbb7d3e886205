"""Trains the demo model from nothing to a checkpoint folder: the one command.

    python train.py --work /tmp/demo-work --out weights

Codec and transformer share nothing while they train (patches.py tells why), so on two cores they run side by
side, a core each; when the codec is done the transformer goes on with all of them. A second call goes on where
the first one was stopped, from the checkpoints in the work folder. A GPU is used when PyTorch finds one.
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def start(script, work, seconds, *more):
    threads = dict(zip(more[::2], more[1::2])).get("--threads", 1)
    return subprocess.Popen([sys.executable, os.path.join(HERE, script), "--work", work, "--seconds", str(seconds), *map(str, more)],
                            env={**os.environ, "OMP_NUM_THREADS": str(threads)})


def replicas(cores):
    import torch
    return 1 if torch.cuda.is_available() else cores


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--work", required=True, help="folder for checkpoints, outside the tree")
    ap.add_argument("--out", required=True, help="checkpoint folder to write")
    ap.add_argument("--codec-seconds", type=float, default=3200)
    ap.add_argument("--seconds", type=float, default=7200, help="of the transformer")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    a = ap.parse_args()
    os.makedirs(a.work, exist_ok=True)
    vocabulary = os.path.join(a.work, "tokenizer.json")
    if not os.path.exists(vocabulary):
        import tokens
        tokens.build_tokenizer(vocabulary)
    share = max(1, a.threads // 2)
    codec = start("train_codec.py", a.work, a.codec_seconds, "--threads", share)
    transformer = start("train_transformer.py", a.work, a.seconds, "--replicas", replicas(share))
    while codec.poll() is None and transformer.poll() is None:
        time.sleep(2)
    if codec.poll() is None and codec.wait():
        sys.exit("the codec's training failed")
    if codec.returncode:
        transformer.terminate()
        sys.exit("the codec's training failed")
    if transformer.poll() is None and a.threads > share:
        transformer.terminate()             # it saves every few minutes and goes on from there
        transformer.wait()
        transformer = start("train_transformer.py", a.work, a.seconds, "--replicas", replicas(a.threads))
    if transformer.wait():
        sys.exit("the transformer's training failed")
    import export
    export.export(a.work, a.out)


if __name__ == "__main__":
    main()
