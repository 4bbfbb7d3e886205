#!/usr/bin/env python3
"""Writes small pictures of every kind a stranger may send, and what Pillow reads from them.

usage: python -m venv v && v/bin/pip install pillow==10.4.0 numpy && v/bin/python make.py
expected.json: "files": name -> {"size", "channels", "pixels" (flat list), "tolerance"}; "resizes": what Pillow's resize makes of
pictures given by a formula, see pattern(). Seeds are fixed.
"""
import io, json, os, struct, zlib
import numpy as np
from PIL import Image, ImageOps

here = os.path.dirname(os.path.abspath(__file__))
W, H = 12, 8
rng = np.random.RandomState(3)

def smooth(channels, w=W, h=H):
    y, x = np.mgrid[0:h, 0:w]
    planes = [x * 255 // (w - 1), y * 255 // (h - 1), (x + y) * 255 // (w + h - 2), 255 - x * 200 // (w - 1)]
    return np.stack(planes[:channels], -1).astype("uint8")

def picture(channels):
    a = smooth(channels)
    return Image.fromarray(a[:, :, 0] if channels == 1 else a, {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])

files = {}
def save(name, image, expected, tolerance=0, **options):
    image.save(os.path.join(here, name), **options) if image is not None else None
    a = np.asarray(expected); channels = 1 if a.ndim == 2 else a.shape[2]
    files[name] = {"size": [a.shape[1], a.shape[0]], "channels": channels, "pixels": a.reshape(-1).tolist(), "tolerance": tolerance}

for channels in range(1, 5):
    save(f"plain{channels}.png", picture(channels), picture(channels))
one = Image.fromarray((rng.rand(H, W) > 0.5).astype("uint8") * 255).convert("1")
save("bits1.png", one, one.convert("L"))
palette = picture(3).quantize(8)
save("palette.png", palette, palette.convert("RGB"))
save("palette_transparent.png", palette, Image.open(io.BytesIO((lambda b: (palette.save(b, "PNG", transparency=2), b.getvalue())[1])(io.BytesIO()))).convert("RGBA"), transparency=2)
deep = (smooth(1)[:, :, 0].astype("uint16") * 257)
save("grey16.png", Image.fromarray(deep), smooth(1)[:, :, 0])
save("interlaced.png", None, picture(3))

def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(w, h, depth, color, raw, interlace=0, before=b""):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlace)) + before + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
def adam7(a):
    raw = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = a[y0::dy, x0::dx]
        if part.size:
            raw += b"".join(b"\0" + row.tobytes() for row in part)
    return raw
open(here + "/interlaced.png", "wb").write(png(W, H, 8, 2, adam7(smooth(3)), 1))
rgb16 = (smooth(3).astype(">u2") * 257)
open(here + "/rgb16.png", "wb").write(png(W, H, 16, 2, b"".join(b"\0" + r.tobytes() for r in rgb16)))
save("rgb16.png", None, picture(3))
# The red of one column is named as transparent.
key = smooth(3)
open(here + "/rgb_key.png", "wb").write(png(W, H, 8, 2, b"".join(b"\0" + r.tobytes() for r in key), before=chunk(b"tRNS", struct.pack(">HHH", *[int(v) for v in key[0, 0]]))))
keyed = np.concatenate([key, np.where((key == key[0, 0]).all(-1), 0, 255)[:, :, None].astype("uint8")], -1)
save("rgb_key.png", None, keyed)
# APNG: IDAT is the first frame, the second one is all black.
raw = b"".join(b"\0" + r.tobytes() for r in smooth(3)); black = b"".join(b"\0" + bytes(W * 3) for _ in range(H))
fctl = lambda n: chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, W, H, 0, 0, 1, 10, 0, 0))
open(here + "/animated.png", "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)) + chunk(b"acTL", struct.pack(">II", 2, 0)) + fctl(0)
    + chunk(b"IDAT", zlib.compress(raw)) + fctl(1) + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(black)) + chunk(b"IEND", b""))
save("animated.png", None, picture(3))

def reread(name): return Image.open(os.path.join(here, name))
options = dict(quality=95, subsampling=0)
for name, image in [("grey.jpg", picture(1)), ("rgb.jpg", picture(3)), ("cmyk.jpg", picture(3).convert("CMYK"))]:
    image.save(os.path.join(here, name), **options)
    save(name, None, reread(name).convert("L" if image.mode == "L" else "RGB"), 2)
picture(3).save(here + "/progressive.jpg", progressive=True, **options); save("progressive.jpg", None, reread("progressive.jpg"), 2)
for orientation in range(1, 9):
    exif = Image.Exif(); exif[0x0112] = orientation; exif[0x010f] = "maker"
    for name, tolerance in [(f"turn{orientation}.jpg", 2), (f"turn{orientation}.png", 0), (f"turn{orientation}.webp", 0)]:
        picture(3).save(os.path.join(here, name), exif=exif, **(options if name.endswith("jpg") else dict(lossless=True) if name.endswith("webp") else {}))
        save(name, None, ImageOps.exif_transpose(reread(name)), tolerance)
save("lossless4.webp", picture(4), picture(4), lossless=True, exact=True)
picture(3).save(here + "/lossy.webp", quality=90); save("lossy.webp", None, reread("lossy.webp").convert("RGB"), 2)
frames = [picture(3), Image.new("RGB", (W, H))]
frames[0].save(here + "/animated.webp", save_all=True, append_images=frames[1:], lossless=True)
save("animated.webp", None, picture(3))

def pattern(w, h, channels):
    i = np.arange(w * h * channels, dtype=np.uint64)
    return ((i * 2654435761 + (i * i) % 9973 * 40503) % (1 << 32) >> 24).astype("uint8").reshape(h, w, channels)
resizes = []
for w, h, channels, ow, oh, name in [(9, 7, 1, 4, 3, "box"), (9, 7, 3, 5, 4, "bicubic"), (9, 7, 2, 13, 5, "bicubic"), (9, 7, 4, 5, 11, "bicubic"), (30, 5, 3, 7, 5, "bicubic"), (5, 30, 3, 5, 7, "bicubic"),
                                     (1, 1, 3, 4, 4, "bicubic"), (2, 3, 4, 9, 8, "bicubic"), (16, 16, 4, 8, 8, "box"), (17, 11, 2, 8, 5, "box"), (100, 3, 1, 3, 2, "bicubic")]:
    a = pattern(w, h, channels)
    im = Image.fromarray(a[:, :, 0] if channels == 1 else a, {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])
    out = np.asarray(im.resize((ow, oh), {"box": Image.BOX, "bicubic": Image.BICUBIC}[name]))
    resizes.append({"from": [w, h, channels], "to": [ow, oh], "filter": name, "pixels": out.reshape(-1).tolist()})
json.dump({"files": files, "resizes": resizes}, open(here + "/expected.json", "w"), separators=(",", ":"))
print(len(files), "files,", len(resizes), "resizes")
