"""Trains the transformer: FP-SFT over rising resolutions, then Omni-SFT over all tasks.

In:  tokenizer.json in the work folder, seconds to spend.  Out: transformer.pt there, also the point
to resume from. The stages share one clock and one schedule: constant to 40%, then linear to nothing.
"""
import argparse
import multiprocessing
import os
import time
import numpy as np
import torch
import torch.distributed as dist
import data
from tokens import Vocabulary
from train_codec import save
from transformer import HIDDEN, Transformer

MUON_RATE, ADAM_RATE, CONSTANT_SHARE, Z_LOSS = 0.02, 3e-3, 0.55, 1e-5
MEET_EVERY = 8          # steps between two averages of the replicas
SHORT, LONG = (12, 224), (18, 368)      # rows and length of a batch: documents of small and of large pictures
DRAW_ONLY = {"draw": 1}
# name, share of the time at which it ends, and its batches: (share, shape, tasks, sizes)
STAGES = (("fp-sft 96", 0.04, ((1, SHORT, DRAW_ONLY, data.STAGE_SIZES[96]),)),
          ("fp-sft 128", 0.12, ((1, SHORT, DRAW_ONLY, data.STAGE_SIZES[128]),)),
          ("fp-sft 192", 0.16, ((.5, SHORT, DRAW_ONLY, data.STAGE_SIZES[128]), (.5, LONG, DRAW_ONLY, data.STAGE_SIZES[192]))),
          ("omni-sft 128", 0.30, ((1, SHORT, data.TASKS, data.FIRST_OMNI_SIZES),)),
          ("omni-sft all", 0.80, ((.85, SHORT, data.LATER_TASKS, data.STAGE_SIZES[128]), (.15, LONG, data.LATER_TASKS, data.STAGE_SIZES[192]))),
          ("omni-sft last", 9.9, ((.65, SHORT, data.LAST_TASKS, data.STAGE_SIZES[128]), (.35, LONG, data.LAST_TASKS, data.STAGE_SIZES[192]))))


def stage_at(share):
    return next(s for s in STAGES if share < s[1])


def producer(queue, share, work, seed):
    """A process of its own: fills the queue with packed rows of the stage that the clock says."""
    torch.set_num_threads(1)
    documents = data.Documents(Vocabulary(os.path.join(work, "tokenizer.json")), seed)
    while True:
        batches = stage_at(share.value)[2]
        _, shape, tasks, sizes = batches[documents.rng.choice(len(batches), p=[b[0] for b in batches])]
        queue.put(data.pack(documents, *shape, tasks, sizes))


class Muon:
    """Momentum whose matrices are made orthogonal by Newton-Schulz steps (Jordan 2024), equal shapes together."""

    def __init__(self, params):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum = {s: torch.zeros((len(ps), *s), device=ps[0].device) for s, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, rate, beta=0.95, decay=0.01):
        for shape, ps in self.groups.items():
            g, m = torch.stack([p.grad for p in ps]), self.momentum[shape]
            m.lerp_(g, 1 - beta)
            x = g.lerp(m, beta).bfloat16()
            tall = shape[0] > shape[1]
            x = x.mT if tall else x
            x = x / (x.float().norm(dim=(1, 2), keepdim=True).bfloat16() + 1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = (x.mT if tall else x).float() * max(1, shape[0] / shape[1]) ** 0.5
            for p, u in zip(ps, x):
                p.mul_(1 - rate * decay).add_(u, alpha=-rate)


def batch_loss(model, batch, device):
    ids, positions, owner, weights = (torch.from_numpy(x).to(device) for x in batch)
    n = ids.shape[1]
    mask = (owner[:, :, None] == owner[:, None]) & torch.ones(n, n, dtype=torch.bool, device=device).tril()
    mask = torch.where(mask, 0.0, HIDDEN)[:, None]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = model.hidden(ids, positions, mask)
        wanted = weights[:, 1:] > 0
        logits = model.lm_head(hidden[:, :-1][wanted])
    logits, w, targets = logits.float(), weights[:, 1:][wanted], ids[:, 1:][wanted]
    z = logits.logsumexp(-1)
    nll = z - logits.gather(1, targets[:, None])[:, 0]
    loss = ((nll + Z_LOSS * z * z) * w).sum() / w.sum()
    text = w > 1.5
    return loss, float(nll[~text].detach().mean()), float(nll[text].detach().mean()) if bool(text.any()) else 0.0, int((owner > 0).sum())


class Trainer:
    """The model, its two optimizers and the place in the schedule; all of it is in the checkpoint."""

    def __init__(self, work, device):
        self.path = os.path.join(work, "transformer.pt")
        self.model = Transformer(Vocabulary(os.path.join(work, "tokenizer.json")).size).to(device)
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "layers" in n and "norm" not in n]
        known = set(map(id, matrices))
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW([p for p in self.model.parameters() if id(p) not in known], lr=ADAM_RATE, betas=(.9, .95), weight_decay=0.01)
        self.spent, self.step, self.tokens = 0.0, 0, 0
        if os.path.exists(self.path):
            s = torch.load(self.path, map_location=device)
            self.model.load_state_dict(s["model"])
            self.adam.load_state_dict(s["adam"])
            self.muon.momentum = s["muon"]
            self.spent, self.step, self.tokens = s["spent"], s["step"], s["tokens"]
        self.model.hidden = torch.compile(self.model.hidden, dynamic=False)

    def save(self):
        save(self.path, model=self.model.state_dict(), adam=self.adam.state_dict(), muon=self.muon.momentum, spent=self.spent, step=self.step, tokens=self.tokens)

    def learn(self, batch, rate, device):
        loss, *rest = batch_loss(self.model, batch, device)
        for p in self.model.parameters():
            p.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for g in self.adam.param_groups:
            g["lr"] = ADAM_RATE * rate
        self.adam.step()
        self.muon.step(MUON_RATE * rate)
        return rest

    @torch.no_grad()
    def meet(self, replicas):
        """Parameters become the mean of all replicas'; the first one's clock and the sum of tokens hold for all."""
        flat = torch.cat([p.reshape(-1) for p in self.model.parameters()])
        dist.all_reduce(flat)
        at = 0
        for p in self.model.parameters():
            p.copy_((flat[at:at + p.numel()] / replicas).view_as(p))
            at += p.numel()
        clock = torch.tensor([self.spent], dtype=torch.float64)
        dist.broadcast(clock, 0)
        self.spent = float(clock)


def train(rank, replicas, work, seconds):
    """One replica. On a CPU that others use too, threads of one model wait for each other at every operation;
    replicas of one thread, whose parameters are averaged every few steps, hardly ever do."""
    torch.set_num_threads(1)
    torch.manual_seed(2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if replicas > 1:
        dist.init_process_group("gloo", init_method="file://" + os.path.join(work, "meeting"), rank=rank, world_size=replicas)
    t = Trainer(work, device)
    context = multiprocessing.get_context("spawn")
    queue, clock = context.Queue(8), context.Value("d", t.spent / seconds)
    maker = context.Process(target=producer, args=(queue, clock, work, t.step * 97 + rank), daemon=True)
    maker.start()
    log, logged, saved, counted, mark = [], t.spent, t.spent, 0, None
    while t.spent < seconds or (replicas > 1 and t.step % MEET_EVERY):      # replicas leave together, at a meeting
        batch = queue.get()
        mark = mark or time.time()          # the clock starts with the first batch
        share = clock.value = t.spent / seconds
        rate = max(0.0, min(1.0, (1 - share) / (1 - CONSTANT_SHARE))) * min(1.0, (t.step + 1) / 40)
        picture, text, n = t.learn(batch, rate, device)
        now = time.time()
        t.spent, mark, t.step, t.tokens, counted = t.spent + now - mark, now, t.step + 1, t.tokens + n * replicas, counted + n * replicas
        if replicas > 1 and t.step % MEET_EVERY == 0:
            t.meet(replicas)
        log.append((picture, text))
        if rank == 0 and t.spent - logged > 30:
            p, q = np.mean(log, 0)
            print(f"{stage_at(share)[0]} step {t.step} spent_s {t.spent:.0f} tokens_m {t.tokens / 1e6:.2f} picture_nll {p:.3f} text_nll {q:.3f} tokens/s {counted / (t.spent - logged):.0f}", flush=True)
            log, logged, counted = [], t.spent, 0
        if rank == 0 and (t.spent - saved > 120 or t.spent >= seconds) and (replicas == 1 or t.step % MEET_EVERY == 0):
            t.save()
            saved = t.spent
    if rank == 0 and replicas == 1:
        t.save()
    maker.terminate()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--work", required=True)
    ap.add_argument("--seconds", type=float, default=4200)
    ap.add_argument("--again-from", type=float, metavar="SHARE", help="sets the clock of a finished run back to this share of --seconds")
    ap.add_argument("--replicas", type=int, default=1, help="processes of one thread each; 1 on a GPU")
    a = ap.parse_args()
    meeting = os.path.join(a.work, "meeting")
    if os.path.exists(meeting):
        os.remove(meeting)
    if a.again_from is not None:
        path = os.path.join(a.work, "transformer.pt")
        save(path, **{**torch.load(path), "spent": a.again_from * a.seconds})
    torch.multiprocessing.spawn(train, (a.replicas, a.work, a.seconds), a.replicas) if a.replicas > 1 else train(0, 1, a.work, a.seconds)


if __name__ == "__main__":
    main()
