"""The transformer of the published layout (Chameleon) for training, and a sampler with its law.

In:  ids with their positions and document numbers.  Out: logits; drawn pictures and answers.
Parameters carry the names of the published files, so state_dict() is the checkpoint.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4,
          "rope_theta": 10000.0, "rms_norm_eps": 1e-5}


HIDDEN = -1e9           # not -inf: a padded row sees nothing, and shall stay finite


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(n)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class HeadNorm(nn.Module):
    """LayerNorm of each head; one row of weights for all heads."""

    def __init__(self, n):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, n)), nn.Parameter(torch.zeros(1, n))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], eps=1e-5) * self.weight[0].to(x.dtype) + self.bias[0].to(x.dtype)


def rope_tables(positions, head_dim, theta):
    """[..., head_dim] cosines and sines, f32."""
    f = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    a = positions[..., None].float() * f
    a = torch.cat((a, a), -1)
    return a.cos(), a.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-b, a), -1) * sin.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden_size"]
        self.heads = c["num_attention_heads"]
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = HeadNorm(d // self.heads), HeadNorm(d // self.heads)

    def forward(self, x, cos, sin, mask, cache=None):
        b, n, d = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        if cache is not None:
            k, v = cache.append(self, k, v)
        # Written out, as torch.compile then fuses mask and softmax: on CPUs 3-7 times faster than the library's kernel.
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5 + mask
        o = torch.softmax(scores, -1).to(v.dtype) @ v
        return self.o_proj(o.transpose(1, 2).reshape(b, n, d))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, m = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(d, m, bias=False), nn.Linear(d, m, bias=False), nn.Linear(m, d, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])

    def forward(self, x, cos, sin, mask, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    def __init__(self, vocab_size, c=None):
        super().__init__()
        self.c = c = c or CONFIG
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocab_size, c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2 and "norm" not in name:
                nn.init.normal_(p, std=0.02 if not name.endswith(("o_proj.weight", "down_proj.weight")) else 0.006)

    def hidden(self, ids, positions, mask, cache=None):
        """mask: f32, broadcast to [rows, heads, queries, keys], 0 where a query sees a key and HIDDEN elsewhere."""
        cos, sin = rope_tables(positions, self.c["hidden_size"] // self.c["num_attention_heads"], self.c["rope_theta"])
        x, cos, sin = self.model.embed_tokens(ids), cos[:, None], sin[:, None]
        for layer in self.model.layers:
            x = layer(x, cos, sin, mask, cache)
        return self.model.norm(x)

    def forward(self, ids, positions, mask, cache=None):
        return self.lm_head(self.hidden(ids, positions, mask, cache))


# Sampling ---------------------------------------------------------------------------------------------------

class Cache:
    """Keys and values of all layers; `room` tokens a row, filled from the left."""

    def __init__(self, room):
        self.room, self.at, self.kept = room, 0, {}

    def append(self, layer, k, v):
        if layer not in self.kept:
            shape = (*k.shape[:2], self.room, k.shape[3])
            self.kept[layer] = (k.new_zeros(shape), v.new_zeros(shape))
        n = k.shape[2]
        for store, new in zip(self.kept[layer], (k, v)):
            store[:, :, self.at:self.at + n] = new
        return tuple(s[:, :, :self.at + n] for s in self.kept[layer])


class Rows:
    """Sequences of different lengths in one batch: prompts are padded on the left and masked there."""

    def __init__(self, model, prompts, extra, pad):
        device = model.lm_head.weight.device
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), pad, device=device)
        self.model, self.cache = model, Cache(longest + extra)
        self.lead = torch.tensor([longest - len(p) for p in prompts], device=device)
        for i, p in enumerate(prompts):
            ids[i, longest - len(p):] = torch.tensor(p, device=device)
        self.logits = self.step(ids)

    def step(self, ids):
        """ids [rows, n] -> logits of the last position [rows, vocab] in f32."""
        n, at = ids.shape[1], self.cache.at
        spot = torch.arange(at, at + n, device=ids.device)
        keys = torch.arange(at + n, device=ids.device)
        mask = (keys[None, None] <= spot[None, :, None]) & (keys[None, None] >= self.lead[:, None, None])
        positions = (spot[None] - self.lead[:, None]).clamp_min(0)
        out = self.model(ids, positions, torch.where(mask, 0.0, HIDDEN)[:, None], self.cache)
        self.cache.at += n
        self.logits = out[:, -1].float()
        return self.logits


def pick(logits, top_k, temperature, generator):
    if temperature == 0:
        return logits.argmax(-1)
    if top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator).to(logits.device) + 1e-10) + 1e-10)
    return (logits / temperature + noise).argmax(-1)


@torch.no_grad()
def draw_pictures(model, v, prompts, width, height, guidance=4.0, top_k=2000, temperature=1.0, seed=0):
    """Prompts end with the end of turn. -> codes [n, rows, columns], by the published order of sampling."""
    device = model.lm_head.weight.device
    rows, cols, n = height // 16, width // 16, len(prompts)
    head, generator = v.picture_head(width, height), torch.Generator().manual_seed(seed)
    full = Rows(model, [p + head for p in prompts], rows * (cols + 1), v.pad)
    bare = Rows(model, [head] * n, rows * (cols + 1), v.pad) if guidance != 1 else None
    first, count = int(v.codes[0]), len(v.codes)
    out = torch.zeros((n, rows, cols), dtype=torch.long)
    for r in range(rows):
        for c in range(cols + 1):
            if c == cols:
                ids = torch.full((n,), v.new_line, device=device)
            else:
                logits = full.logits if bare is None else bare.logits + guidance * (full.logits - bare.logits)
                ids = first + pick(logits[:, first:first + count], top_k, temperature, generator)
                out[:, r, c] = (ids - first).cpu()
            full.step(ids[:, None])
            if bare is not None:
                bare.step(ids[:, None])
    return out.numpy()


@torch.no_grad()
def answer_texts(model, v, prompts, limit=8):
    """The best token each time, until the end of turn; -> texts."""
    rows = Rows(model, prompts, limit, v.pad)
    out = [[] for _ in prompts]
    open_ = [True] * len(prompts)
    for _ in range(limit):
        ids = rows.logits.argmax(-1)
        for i, t in enumerate(ids.tolist()):
            open_[i] = open_[i] and t != v.eot
            if open_[i]:
                out[i].append(t)
        if not any(open_):
            break
        rows.step(ids[:, None])
    return [v.file.decode(o) for o in out]
