"""Measures a checkpoint folder in PyTorch, with the same tasks and judge as tests/demo_eval.

In:  a folder written by export.py.  Out: figures on stdout and, on request, contact sheets.
For use while training; the figures that count come from the program itself, by tests/demo_eval.
"""
import argparse
import os
import sys
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokens import DENSE, FROM_MAP, Vocabulary
from transformer import Transformer, answer_texts, draw_pictures
from vqgan import Codec, to_pixels, to_tensor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "demo_eval"))
import tasks                # noqa: E402

BATCH = 50


class TorchModel:
    """The backend of tests/demo_eval/tasks.py on this folder's own code."""

    def __init__(self, folder, guidance=4.0, top_k=2000):
        self.v = Vocabulary(os.path.join(folder, "tokenizer.json"))
        state = load_file(os.path.join(folder, "model.safetensors"))
        self.model = Transformer(len(state["lm_head.weight"]))
        self.model.load_state_dict({k: v.float() for k, v in state.items()})
        self.codec = Codec()
        ckpt = torch.load(os.path.join(folder, "tokenizer", "vqgan.ckpt"))["state_dict"]
        self.codec.load_state_dict({k: v.float() for k, v in ckpt.items()})
        self.guidance, self.top_k = guidance, top_k

    @torch.no_grad()
    def encode(self, pictures):
        return np.concatenate([self.codec.encode(to_tensor(np.stack(pictures[i:i + BATCH]))).numpy() for i in range(0, len(pictures), BATCH)])

    @torch.no_grad()
    def decode(self, grids):
        return list(np.concatenate([to_pixels(self.codec.decode(torch.from_numpy(np.asarray(grids[i:i + BATCH])))) for i in range(0, len(grids), BATCH)]))

    def pictures(self, prompts, size, guidance, top_k):
        grids = [draw_pictures(self.model, self.v, prompts[i:i + BATCH], *size, guidance, top_k, seed=i) for i in range(0, len(prompts), BATCH)]
        return self.decode(np.concatenate(grids))

    def draw(self, captions, size, guidance=None, top_k=None):
        prompts = [self.v.draw_prompt(c, *size) for c in captions]
        return self.pictures(prompts, size, self.guidance if guidance is None else guidance, top_k or self.top_k)

    def map(self, kind, pictures):
        size = (pictures[0].shape[1], pictures[0].shape[0])
        return self.pictures([self.v.picture_prompt(DENSE[kind], g) for g in self.encode(pictures)], size, 1.0, 200)

    def from_map(self, captions, maps):
        size = (maps[0].shape[1], maps[0].shape[0])
        prompts = [self.v.picture_prompt(FROM_MAP.format(c), g) for c, g in zip(captions, self.encode(maps))]
        return self.pictures(prompts, size, self.guidance, self.top_k)

    def ask(self, asked):
        prompts = []
        for grid, (_, turns) in zip(self.encode([p for p, _ in asked]), asked):
            ids = self.v.question_prompt(grid, turns[0][0])
            for (_, answer), (question, _) in zip(turns, turns[1:]):
                ids = ids + self.v.text(answer) + [self.v.eot] + self.v.text(question) + [self.v.eot]
            prompts.append(ids)
        return sum((answer_texts(self.model, self.v, prompts[i:i + BATCH]) for i in range(0, len(prompts), BATCH)), [])

    def round_trip(self, pictures):
        return self.decode(self.encode(pictures))


def sheet(pictures, path, across=10, scale=1):
    rows = [np.concatenate(pictures[i:i + across], 1) for i in range(0, len(pictures) // across * across, across)]
    im = Image.fromarray(np.concatenate(rows))
    im.resize((im.width * scale, im.height * scale), Image.NEAREST).save(path)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("folder")
    ap.add_argument("--scenes", type=int, default=100)
    ap.add_argument("--size", default="128x128")
    ap.add_argument("--tasks", default="draw,segmentation,depth,normals,from_map,questions,second_turns,codec")
    ap.add_argument("--guidance", type=float, default=4.0)
    ap.add_argument("--top-k", type=int, default=2000)
    ap.add_argument("--count", type=int)
    ap.add_argument("--sheets", help="folder for contact sheets")
    a = ap.parse_args()
    torch.set_num_threads(1)
    backend, size = TorchModel(a.folder, a.guidance, a.top_k), tuple(map(int, a.size.split("x")))
    for name in a.tasks.split(","):
        extra = {"count": a.count} if name == "draw" else {}
        got = getattr(tasks, name)(backend, a.scenes, size, **extra)
        lines, pictures = got if isinstance(got, tuple) else (got, None)
        for l in lines:
            print(f"{name} {a.size}: {tasks.text_of(l)}", flush=True)
        if a.sheets and pictures is not None:
            sheet(pictures, os.path.join(a.sheets, f"{name}-{a.size}.png"))


if __name__ == "__main__":
    main()
