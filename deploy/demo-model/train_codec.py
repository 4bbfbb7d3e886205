"""Trains the picture codec on scenes made as it goes.

In:  seconds to spend and a work folder.  Out: codec.pt there (also the point to resume from), a log on stdout.
Three phases on one clock: a plain autoencoder; then a codebook in which every different patch has a code, its
mean latent, that follows the encoder by moving averages. A cross-entropy over distances makes that code the
nearest one. Last, the decoder alone: encoder and codes stay, and it sees the codes of the patches.
Left to itself the encoder gives one patch some seven codes, as its neighbours change it (measured:
half of the cells did not get their patch's commonest code), and every task then has that noise to learn.
"""
import argparse
import math
import os
import time
import numpy as np
import torch
import torch.nn.functional as F
import patches
import scenes
from data import HELD_OUT
from vqgan import Codec, DDCONFIG, to_pixels, to_tensor

# Small pictures show the same patches at a fraction of the cost; the large ones keep GroupNorm honest about sizes.
SIZES = (((96, 96), 4), ((96, 64), 2), ((64, 96), 1), ((128, 128), 4), ((160, 96), 1), ((96, 160), 1), ((192, 192), 1))
KIND_SHARE = {"rgb": 4, "segmentation": 1, "depth": 2, "normals": 1}
POLISH_KIND_SHARE = {"rgb": 3, "segmentation": 3, "depth": 1, "normals": 4}     # what is still worst gets most
BATCH_PIXELS = 8 * 128 * 128
PLAIN_SHARE, POLISH_SHARE, LEARNING_RATE, DECAY = 0.10, 0.65, 1.2e-3, 0.99
SHARPNESS, NAMING_WEIGHT = 20.0, 0.1


def picture_batch(rng, width, height, n, kind_share=None):
    """n pictures of all kinds, their weights (object pixels count three times) and the numbers of their patches."""
    share = np.array([(kind_share or KIND_SHARE)[k] for k in scenes.KINDS], float)
    kinds = rng.choice(scenes.KINDS, n, p=share / share.sum())
    pictures, weights, labels = [], [], []
    for kind in map(str, kinds):
        scene = scenes.sample_scene(int(rng.integers(HELD_OUT)), width, height, int(rng.choice((2, 3, 4))))
        pictures.append(scenes.RENDER[kind](scene))
        weights.append(1.0 + 2.0 * scenes.things_mask(scene))
        labels.append(patches.grid(scene, kind))
    return np.stack(pictures), torch.from_numpy(np.stack(weights)).float()[:, None], torch.from_numpy(np.stack(labels))


def picture_loss(y, x, w):
    d = y - x
    edge = sum((((y.diff(dim=k) - x.diff(dim=k)).abs()) * w.narrow(k, 1, w.shape[k] - 1)).mean() for k in (2, 3))
    return (d.abs() * w).mean() + 2 * (d * d * w).mean() + 0.5 * edge


class Codebook:
    """quantize.embedding as moving averages: code k is the mean latent of patch k (patches.py)."""

    def __init__(self, embedding):
        self.e = embedding
        self.count = torch.zeros(embedding.shape[0], device=embedding.device)
        self.sum = torch.zeros_like(embedding)

    def add(self, flat, labels, keep):
        hits = torch.bincount(labels, minlength=len(self.e)).float()
        self.count.mul_(keep).add_(hits, alpha=1 - keep)
        self.sum.mul_(keep).index_add_(0, labels, flat, alpha=1 - keep)
        live = self.count > 1e-6
        self.e[live] = self.sum[live] / self.count[live, None]
        # Codes of no patch lie on top of a used one with a smaller number, which wins the tie: they never appear.
        self.e[patches.count():] = self.e[0]


@torch.no_grad()
def start_codebook(model, book, rng, device):
    for _ in range(40):
        for size in ((96, 96), (128, 128), (128, 256)):
            pictures, _, labels = picture_batch(rng, *size, 12)
            z = model.latents(to_tensor(pictures).to(device)).float().permute(0, 2, 3, 1)
            book.add(z.reshape(-1, z.shape[-1]), labels.reshape(-1).to(device), 0.999)


def naming_loss(z, labels, embedding, w):
    """Cross-entropy of the nearest-code choice: the right code shall be nearest, by a margin, in any company."""
    flat, e = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]), embedding[:patches.count()]
    d = (flat * flat).sum(1, keepdim=True) - 2 * flat @ e.T + (e * e).sum(1)
    spread = 2 * e.var(0).sum()             # the mean squared distance of two codes
    loss = F.cross_entropy(-SHARPNESS / spread * d, labels.reshape(-1), reduction="none")
    w = w.reshape(-1)
    return (loss * w).sum() / w.sum(), float((d.argmin(1) != labels.reshape(-1)).float().mean())


def psnr(a, b):
    return 10 * math.log10(255 ** 2 / max(1e-9, float(((a.astype(float) - b) ** 2).mean())))


@torch.no_grad()
def report(model, device, n=6, sizes=((128, 128), (160, 96), (96, 160), (192, 192))):
    """PSNR of each kind at each size over held-out scenes, all pixels together."""
    out = []
    for size in sizes:
        figures, wrong = [], []
        for kind in scenes.KINDS:
            x = np.stack([scenes.RENDER[kind](scenes.sample_scene(HELD_OUT + i, *size)) for i in range(n)])
            codes = model.encode(to_tensor(x).to(device))
            y = to_pixels(model.decode(codes))
            labels = np.stack([patches.grid(scenes.sample_scene(HELD_OUT + i, *size), kind) for i in range(n)])
            wrong.append((codes.cpu().numpy() != labels).mean())
            figures.append(f"{psnr(y, x):.1f}")
        out.append(f"{size[0]}x{size[1]} " + "/".join(figures) + f" wrong {np.mean(wrong):.4f}")
    return "psnr rgb/seg/depth/normals: " + "  ".join(out)


def learning_rate(share):
    """Falls to nearly nothing until the decoder goes on alone, then once more from a half."""
    top, share = (1, share / POLISH_SHARE) if share < POLISH_SHARE else (0.5, (share - POLISH_SHARE) / (1 - POLISH_SHARE))
    return top * LEARNING_RATE * min(1, share / 0.03) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1, share))))


def polish_step(model, opt, batch, device):
    """The decoder alone, on the codes that the patches have."""
    pictures, w, labels = batch
    x, w, labels = to_tensor(pictures).to(device), w.to(device), labels.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = model.decode_latents(model.quantize.embedding(labels).permute(0, 3, 1, 2).detach())
    loss = picture_loss(y.float(), x, w)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    return float(loss.detach()), 0.0, 0.0


def one_step(model, opt, book, batch, quantise, device):
    pictures, w, labels = batch
    x, w, labels = to_tensor(pictures).to(device), w.to(device), labels.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        z = model.latents(x)
    q = z = z.float()
    naming, commit, wrong = torch.zeros((), device=device), torch.zeros((), device=device), 1.0
    if quantise:
        hard = model.quantize.embedding(labels).permute(0, 3, 1, 2).detach().clone()
        commit = F.mse_loss(z, hard)
        naming, wrong = naming_loss(z, labels, model.quantize.embedding.weight.detach().clone(), F.avg_pool2d(w, 16) ** 2)
        q = z + (hard - z).detach()
        book.add(z.detach().permute(0, 2, 3, 1).reshape(-1, z.shape[1]), labels.reshape(-1), DECAY)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = model.decode_latents(q)
    loss = picture_loss(y.float(), x, w)
    opt.zero_grad(set_to_none=True)
    (loss + 0.25 * commit + NAMING_WEIGHT * naming).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    return float(loss.detach()), float(naming.detach()), wrong


def save(path, **state):
    torch.save(state, path + ".part")
    os.replace(path + ".part", path)


def train(work, seconds, device):
    path = os.path.join(work, "codec.pt")
    model = Codec().to(device)
    model.quantize.embedding.weight.requires_grad_(False)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, betas=(.9, .95), weight_decay=0.01)
    book, spent, step, quantise = Codebook(model.quantize.embedding.weight.data), 0.0, 0, False
    if os.path.exists(path):
        s = torch.load(path, map_location=device)
        model.load_state_dict(s["model"])
        opt.load_state_dict(s["opt"])
        book.count, book.sum = s["count"], s["sum"]
        spent, step, quantise = s["spent"], s["step"], s["quantise"]
    rng, shares = np.random.default_rng(step + 1), np.array([s for _, s in SIZES], float)
    losses, seen, logged, mark, saved = [], 0, spent, time.time(), spent
    while spent < seconds:
        share = spent / seconds
        if share > PLAIN_SHARE and not quantise:
            start_codebook(model, book, rng, device)
            quantise = True
            print(f"codebook starts with {int((book.count > 0).sum())} of {patches.count()} patches met", flush=True)
        (width, height), _ = SIZES[rng.choice(len(SIZES), p=shares / shares.sum())]
        n = max(2, BATCH_PIXELS // (width * height))
        for g in opt.param_groups:
            g["lr"] = learning_rate(share)
        if share < POLISH_SHARE:
            losses.append(one_step(model, opt, book, picture_batch(rng, width, height, n), quantise, device))
        else:
            losses.append(polish_step(model, opt, picture_batch(rng, width, height, n, POLISH_KIND_SHARE), device))
        step, seen = step + 1, seen + n
        now = time.time()
        spent, mark = spent + now - mark, now
        if spent - logged > 30:
            loss, naming, wrong = np.mean(losses, 0)
            print(f"codec step {step} spent_s {spent:.0f} loss {loss:.4f} naming {naming:.4f} wrong {wrong:.4f} pictures/s {seen / (spent - logged):.1f}", flush=True)
            losses, seen, logged = [], 0, spent
        if spent - saved > 180 or spent >= seconds:
            save(path, model=model.state_dict(), opt=opt.state_dict(), count=book.count, sum=book.sum, spent=spent, step=step, quantise=quantise, dd=DDCONFIG)
            saved = spent
            if quantise:
                print(report(model, device), flush=True)
            mark = time.time()          # the report is not training
    return model


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--work", required=True)
    ap.add_argument("--seconds", type=float, default=1500)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--again-from", type=float, metavar="SHARE", help="sets the clock of a finished run back to this share of --seconds")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    os.makedirs(a.work, exist_ok=True)
    if a.again_from is not None:
        path = os.path.join(a.work, "codec.pt")
        save(path, **{**torch.load(path), "spent": a.again_from * a.seconds})
    train(a.work, a.seconds, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
