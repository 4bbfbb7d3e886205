"""Finds the objects of a drawn picture, by comparing it with the picture of every object at every place.

In:  uint8 [h, w, 3].  Out: the things found, and the cells that hold something no object explains.
No network and no training: as objects stand on a lattice in 64 looks, all candidates can be rendered. A box
holds an object when its pixels are much nearer to that object's picture than to the empty scene's (the error
falls by 60% or more) and near it outright (28 grey levels rms over the pixels the object touches).
Of rendered and of codec-decoded pictures it must find everything: `python judge.py` counts that.
"""
from functools import lru_cache
import numpy as np
import scenes
from scenes import BOX, CELL, Thing

MUCH_NEARER, NEAR_RMS, STRAY_RMS = 0.6, 28.0, 14.0
LOOKS = [(s, c, z) for s in scenes.SHAPES for c in scenes.COLOURS for z in scenes.SIZES]


@lru_cache(maxsize=None)
def _candidates(row, height):
    """Of all looks with their box at this row: pictures [64, 3072], the pixels they change (same shape), the empty box."""
    empty = scenes.background_rgb(BOX, height)[row * CELL:row * CELL + BOX]
    pictures = np.stack([np.clip(scenes.paint(Thing(*look, 0, row), empty), 0, 255) for look in LOOKS]).reshape(len(LOOKS), -1)
    empty = empty.reshape(-1)
    touched = (np.abs(pictures - empty).reshape(len(LOOKS), -1, 3).max(-1, keepdims=True) > 6).repeat(3, -1).reshape(len(LOOKS), -1)
    return pictures, touched, empty


def _scores(boxes, row, height):
    """For [n, 3072] boxes: gain of the best look (squared error it explains), the look, and whether it is accepted."""
    pictures, touched, empty = _candidates(row, height)
    found = []
    for box in boxes:
        with_it = ((pictures - box) ** 2 * touched).sum(1)
        without = ((empty - box) ** 2 * touched).sum(1)
        best = int((without - with_it).argmax())
        ok = with_it[best] < (1 - MUCH_NEARER) * without[best] and with_it[best] < NEAR_RMS ** 2 * touched[best].sum()
        found.append((without[best] - with_it[best], best, ok))
    return found


def parse(picture):
    """-> (tuple of Things from left to right, number of stray cells)."""
    x = picture.astype(float)
    height, width, _ = x.shape
    hits = []
    for row in range(max(0, scenes.horizon_row(height) - 1), height // CELL - 1):
        cols = range(width // CELL - 1)
        boxes = [x[row * CELL:row * CELL + BOX, c * CELL:c * CELL + BOX].reshape(-1) for c in cols]
        hits += [(gain, row, c, look) for c, (gain, look, ok) in zip(cols, _scores(boxes, row, height)) if ok]
    things = []
    for gain, row, col, look in sorted(hits, reverse=True):
        if all(abs(row - t.row) > 1 or abs(col - t.col) > 1 for t in things):
            things.append(Thing(*LOOKS[look], col, row))
    stray = _cell_rms(x - scenes.background_rgb(width, height)) > STRAY_RMS
    for t in things:
        stray[t.row:t.row + 2, t.col:t.col + 2] = False
    return tuple(sorted(things, key=lambda t: t.col)), int(stray.sum())


def _cell_rms(d):
    h, w, _ = d.shape
    return np.sqrt((d.reshape(h // CELL, CELL, w // CELL, CELL, 3) ** 2).mean((1, 3, 4)))


def classes_of(picture):
    """A drawn segmentation map -> [h, w] class numbers, each pixel to the nearest colour of the palette."""
    d = ((picture.astype(int)[:, :, None] - scenes.PALETTE.astype(int)) ** 2).sum(-1)
    return d.argmin(-1)


if __name__ == "__main__":
    total = right = 0
    for seed in range(200):
        for size in ((128, 128), (96, 160), (192, 192)):
            scene = scenes.sample_scene(seed, *size)
            things, stray = parse(scenes.render_rgb(scene))
            total, right = total + 1, right + (things == tuple(sorted(scene.things, key=lambda t: t.col)) and not stray)
    print(f"rendered pictures read right: {right} of {total}")
