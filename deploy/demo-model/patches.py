"""The different 16x16 patches of all pictures of all scenes, numbered once and for all.

In:  scenes.  Out: the list of patches, and any picture as a grid of patch numbers without rendering it.
As objects stand on the codec's lattice and share no cell, there are only some eight hundred patches. Training
gives each a code of its own: number k here is code k of the codec. The transformer's training data then need no
encoder, and a picture of a scene has exactly one sequence of tokens, whatever stands elsewhere in it.
"""
from functools import lru_cache
import numpy as np
import scenes

HEIGHTS = range(64, 257, 32)        # patches of higher pictures (depth far below the horizon) have no number
SAME_RMS = 1.0                      # grey levels: patches nearer to each other than this share a number


def cut(picture):
    """uint8 [h, w, 3] -> bytes of its patches, [h/16][w/16]."""
    h, w, _ = picture.shape
    cells = picture.reshape(h // 16, 16, w // 16, 16, 3).swapaxes(1, 2).reshape(h // 16, w // 16, 768)
    return [[c.tobytes() for c in row] for row in cells]


def _block_picture(kind, shape, colour, size, row, height):
    scene = scenes.Scene(32, height, (scenes.Thing(shape, colour, size, 0, row),))
    return cut(scenes.RENDER[kind](scene))[row:row + 2]


def _all():
    """{bytes: place} of all patches, in a fixed order: backgrounds first, then objects kind by kind."""
    out = {}
    for kind in scenes.KINDS:
        for height in HEIGHTS:
            for row in cut(scenes.RENDER[kind](scenes.Scene(32, height, ()))):
                out.setdefault(row[0], len(out))
    for kind in scenes.KINDS:
        colours = tuple(scenes.COLOURS) if kind == "rgb" else ("red",)
        for height in HEIGHTS:
            for row in range(scenes.horizon_row(height) - 1, height // 16 - 1):
                for look in ((s, c, z) for s in scenes.SHAPES for c in colours for z in scenes.SIZES):
                    for line in _block_picture(kind, *look, row, height):
                        for patch in line:
                            out.setdefault(patch, len(out))
    return out


@lru_cache(maxsize=None)
def numbers():
    """{bytes: number}; a patch that can hardly be told from an earlier one takes that one's number."""
    out, kept = {}, []
    for patch in _all():
        x = np.frombuffer(patch, np.uint8).astype(np.float32)
        near = np.sqrt(((np.stack(kept) - x) ** 2).mean(1)) if kept else np.array([np.inf])
        if near.min() < SAME_RMS:
            out[patch] = int(near.argmin())
        else:
            out[patch] = len(kept)
            kept.append(x)
    return out


def count():
    return 1 + max(numbers().values())


def _grid(rows):
    return np.array([[numbers()[p] for p in row] for row in rows])


@lru_cache(maxsize=None)
def _empty(kind, width, height):
    return _grid(cut(scenes.RENDER[kind](scenes.Scene(width, height, ()))))


@lru_cache(maxsize=None)
def _block(kind, shape, colour, size, row, height):
    return _grid(_block_picture(kind, shape, colour, size, row, height))


def grid(scene, kind):
    """[rows, columns] of patch numbers; equal to rendering the picture and cutting it up."""
    out = _empty(kind, scene.width, scene.height).copy()
    for t in scene.things:
        out[t.row:t.row + 2, t.col:t.col + 2] = _block(kind, t.shape, t.colour if kind == "rgb" else "red", t.size, t.row, scene.height)
    return out
