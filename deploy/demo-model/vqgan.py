"""The picture codec: a VQ-GAN in the layout (names, order, arithmetic) of the published checkpoints.

In:  pictures [n, 3, h, w] in -1..1.  Out: codes [n, h/16, w/16], and pictures again.
Sources: Esser et al. 2021 (arXiv 2012.09841) for the architecture; REFERENCE.md for names and sizes.
The adversarial and perceptual losses of the paper are left out: the scenes hold nothing finer than pixels show.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

DDCONFIG = {"ch": 32, "ch_mult": [1, 1, 2, 2, 3], "num_res_blocks": 1, "attn_resolutions": [], "in_channels": 3, "out_ch": 3,
            "resolution": 256, "z_channels": 64, "double_z": False, "dropout": 0.0}
EMBED_DIM, N_EMBED = 64, 1024


def norm(c):
    return nn.GroupNorm(32, c, eps=1e-6)


def conv3(a, b, stride=1, padding=1):
    return nn.Conv2d(a, b, 3, stride, padding)


class ResBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = norm(a), conv3(a, b), norm(b), conv3(b, b)
        if a != b:
            self.nin_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, c):
        super().__init__()
        self.norm = norm(c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2)[:, None] for f in (self.q, self.k, self.v))
        o = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(o)


class Down(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv3(c, c, 2, 0)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = conv3(c, c)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(c):
    m = nn.Module()
    m.block_1, m.attn_1, m.block_2 = ResBlock(c, c), Attention(c), ResBlock(c, c)
    return m


def run_middle(m, x):
    return m.block_2(m.attn_1(m.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.conv_in, self.down, c = conv3(d["in_channels"], d["ch"]), nn.ModuleList(), d["ch"]
        for level, mult in enumerate(d["ch_mult"]):
            step = nn.Module()
            step.block = nn.ModuleList()
            for _ in range(d["num_res_blocks"]):
                step.block.append(ResBlock(c, d["ch"] * mult))
                c = d["ch"] * mult
            if level + 1 < len(d["ch_mult"]):
                step.downsample = Down(c)
            self.down.append(step)
        self.mid, self.norm_out, self.conv_out = middle(c), norm(c), conv3(c, d["z_channels"])

    def forward(self, x):
        x = self.conv_in(x)
        for step in self.down:
            for block in step.block:
                x = block(x)
            if hasattr(step, "downsample"):
                x = step.downsample(x)
        return self.conv_out(F.silu(self.norm_out(run_middle(self.mid, x))))


class Decoder(nn.Module):
    def __init__(self, d):
        super().__init__()
        c = d["ch"] * d["ch_mult"][-1]
        self.conv_in, self.mid, up = conv3(d["z_channels"], c), middle(c), []
        for level in reversed(range(len(d["ch_mult"]))):
            step = nn.Module()
            step.block = nn.ModuleList()
            for _ in range(d["num_res_blocks"] + 1):
                step.block.append(ResBlock(c, d["ch"] * d["ch_mult"][level]))
                c = d["ch"] * d["ch_mult"][level]
            if level:
                step.upsample = Up(c)
            up.insert(0, step)          # names count from the finest level, the order of work is the other way
        self.up, self.norm_out, self.conv_out = nn.ModuleList(up), norm(c), conv3(c, d["out_ch"])

    def forward(self, z):
        x = run_middle(self.mid, self.conv_in(z))
        for step in reversed(self.up):
            for block in step.block:
                x = block(x)
            if hasattr(step, "upsample"):
                x = step.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codec(nn.Module):
    def __init__(self, d=None, embed_dim=EMBED_DIM, n_embed=N_EMBED):
        super().__init__()
        d = d or DDCONFIG
        self.encoder, self.decoder = Encoder(d), Decoder(d)
        self.quant_conv = nn.Conv2d(d["z_channels"], embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, d["z_channels"], 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(n_embed, embed_dim)

    def latents(self, x):
        return self.quant_conv(self.encoder(x))

    def nearest(self, z):
        """[n, e, h, w] -> codes [n, h, w]; always in f32, as the distances of near codes differ little."""
        e = self.quantize.embedding.weight.float()
        flat = z.float().permute(0, 2, 3, 1).reshape(-1, e.shape[1])
        return ((e * e).sum(1) - 2 * flat @ e.T).argmin(1).reshape(z.shape[0], *z.shape[2:])

    def encode(self, x):
        return self.nearest(self.latents(x))

    def decode_latents(self, z):
        return self.decoder(self.post_quant_conv(z))

    def decode(self, codes):
        return self.decode_latents(self.quantize.embedding(codes).permute(0, 3, 1, 2))


def to_tensor(pictures):
    """uint8 [n, h, w, 3] -> [n, 3, h, w] in -1..1."""
    # Channels in the last place of memory would make GroupNorm's backward pass on CPUs ten times slower.
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def to_pixels(x):
    """[-1, 1] -> uint8 [n, h, w, 3], truncated as the published decoder does."""
    return ((x.float().clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(force=True)
