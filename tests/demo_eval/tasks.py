"""The measured tasks: what is asked of the model over held-out scenes, and how an answer is scored.

In:  a backend (program.py) that draws, maps, answers and codes; numbers of scenes.
Out: for each task a list of figures with 95% intervals, beside what an answer without skill would get.
Scenes come from deploy/demo-model/scenes.py with seeds no training has used. Pictures are judged by judge.py
there: a comparison with the picture of every object at every place, exact on the scenes' lattice.
"""
import math
import os
import sys
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "demo-model"))
import judge                # noqa: E402
import scene_text           # noqa: E402
import scenes               # noqa: E402

HELD_OUT = 2 * 10 ** 9      # training draws its seeds below 10^9


def scene_at(i, size, count=None):
    return scenes.sample_scene(HELD_OUT + i, *size, count=count)


def text_generator(i):
    return np.random.default_rng([11, i])


# Intervals ----------------------------------------------------------------------------------------------------

class Share:
    """k of n, with Wilson's 95% interval."""

    def __init__(self):
        self.k = self.n = 0

    def add(self, k, n=1):
        self.k, self.n = self.k + k, self.n + n

    def value(self):
        return self.k / self.n if self.n else float("nan")

    def interval(self):
        if not self.n:
            return 0.0, 1.0
        p, z = self.value(), 1.96
        middle, half = p + z * z / (2 * self.n), z * math.sqrt(p * (1 - p) / self.n + z * z / (4 * self.n ** 2))
        return (middle - half) / (1 + z * z / self.n), (middle + half) / (1 + z * z / self.n)


class Mean:
    """The mean of one figure a scene, with a bootstrap interval over scenes; `join` may pool parts otherwise."""

    def __init__(self, join=None):
        self.rows, self.join = [], join or (lambda rows: float(np.mean(rows)))

    def add(self, row):
        self.rows.append(row)

    def value(self):
        return self.join(np.array(self.rows, float)) if self.rows else float("nan")

    @property
    def n(self):
        return len(self.rows)

    def interval(self):
        rows, rng = np.array(self.rows, float), np.random.default_rng(0)
        again = [self.join(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(400)]
        return tuple(map(float, np.nanpercentile(again, (2.5, 97.5))))


def line(name, figure, baseline=None):
    low, high = figure.interval()
    return {"name": name, "value": figure.value(), "low": low, "high": high, "n": figure.n,
            "baseline": None if baseline is None else baseline.value()}


def text_of(one):
    base = "" if one["baseline"] is None else f"   without skill {one['baseline']:.3f}"
    return f"{one['name']}: {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] of {one['n']}{base}"


# Text to image ------------------------------------------------------------------------------------------------

def _score_picture(picture, claim, into):
    things, stray = judge.parse(picture)
    objects, facts, count = scene_text.caption_holds(claim, things)
    whole = objects == len(claim.parts) and facts == len(claim.facts) and count and not stray
    into["objects"].add(objects, len(claim.parts))
    into["captions"].add(whole)
    into["relations"].add(facts, len(claim.facts))
    into["count"].add(count)
    into["stray"].add(stray > 0)
    return whole


def draw(backend, n, size, guidance=None, top_k=None, count=None):
    """Captions of held-out scenes; the baseline is the picture of another held-out scene."""
    keys = ("objects", "captions", "relations", "count", "stray")
    got, bare = {k: Share() for k in keys}, {k: Share() for k in keys}
    wanted = [scene_text.caption(scene_at(i, size, count), text_generator(i)) for i in range(n)]
    pictures = backend.draw([text for text, _ in wanted], size, guidance, top_k)
    for i, ((_, claim), picture) in enumerate(zip(wanted, pictures)):
        _score_picture(picture, claim, got)
        _score_picture(scenes.render_rgb(scene_at(10 ** 6 + i, size, count)), claim, bare)
    names = {"objects": "objects right (all stated of colour, shape, size)", "captions": "whole captions right", "relations": "relations right",
             "count": "number of objects right", "stray": "pictures with stray fragments"}
    return [line(names[k], got[k], bare[k]) for k in keys], pictures


# Maps of a picture --------------------------------------------------------------------------------------------

def iou_rows(found, true):
    """[classes, 2] of intersections and unions of one picture."""
    return [[((found == c) & (true == c)).sum(), ((found == c) | (true == c)).sum()] for c in range(len(scenes.CLASSES))]


def object_iou(rows):
    """Mean over the four object classes of the IoU of all pictures together."""
    total = rows.sum(0)[2:]
    return float(np.mean(total[:, 0] / np.maximum(total[:, 1], 1)))


def segmentation(backend, n, size):
    got, every, bare = Mean(object_iou), Mean(lambda r: float(np.mean(r.sum(0)[:, 0] / np.maximum(r.sum(0)[:, 1], 1)))), Mean(object_iou)
    batch = [scene_at(i, size) for i in range(n)]
    pictures = backend.map("segmentation", [scenes.render_rgb(s) for s in batch])
    for i, (scene, picture) in enumerate(zip(batch, pictures)):
        true = scenes.class_map(scene)
        rows = iou_rows(judge.classes_of(picture), true)
        got.add(rows)
        every.add(rows)
        bare.add(iou_rows(scenes.class_map(scene_at(10 ** 6 + i, size)), true))
    return [line("mean IoU of the object classes", got, bare), line("mean IoU of all classes", every)], pictures


def depth(backend, n, size):
    got, bare = Mean(), Mean()
    batch = [scene_at(i, size) for i in range(n)]
    pictures = backend.map("depth", [scenes.render_rgb(s) for s in batch])
    empty = scenes.depth_map(scenes.Scene(*size, ()))
    for scene, picture in zip(batch, pictures):
        true, mask = scenes.depth_map(scene), scenes.things_mask(scene)
        found = scenes.grey_to_depth(picture.astype(float).mean(-1))
        got.add((np.abs(found - true) / true)[mask].mean())
        bare.add((np.abs(empty - true) / true)[mask].mean())
    return [line("AbsRel on object pixels", got, bare)], pictures


def normals(backend, n, size):
    got, bare = Mean(), Mean()
    batch = [scene_at(i, size) for i in range(n)]
    pictures = backend.map("normals", [scenes.render_rgb(s) for s in batch])
    for scene, picture in zip(batch, pictures):
        true, mask = scenes.normal_map(scene)[scenes.things_mask(scene)], scenes.things_mask(scene)
        found = picture[mask] / 127.5 - 1
        found /= np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-6)
        got.add(np.degrees(np.arccos(np.clip((found * true).sum(-1), -1, 1))).mean())
        viewer = np.array((0, 0, 1.0))
        bare.add(np.degrees(np.arccos(np.clip(true @ viewer, -1, 1))).mean())
    return [line("mean angle on object pixels, degrees", got, bare)], pictures


def from_map(backend, n, size):
    """A caption and the true map; the drawn picture is read back and its map compared with the given one."""
    got, bare, objects = Mean(object_iou), Mean(object_iou), Share()
    batch = [scene_at(i, size) for i in range(n)]
    wanted = [scene_text.caption(s, text_generator(i)) for i, s in enumerate(batch)]
    pictures = backend.from_map([t for t, _ in wanted], [scenes.render_segmentation(s) for s in batch])
    for i, (scene, (_, claim), picture) in enumerate(zip(batch, wanted, pictures)):
        things, _ = judge.parse(picture)
        true = scenes.class_map(scene)
        got.add(iou_rows(scenes.class_map(scenes.Scene(*size, things)), true))
        bare.add(iou_rows(scenes.class_map(scene_at(10 ** 6 + i, size)), true))
        objects.add(scene_text.caption_holds(claim, things)[0], len(claim.parts))
    return [line("mean IoU of the map found again", got, bare), line("objects right", objects)], pictures


# Questions ----------------------------------------------------------------------------------------------------

def _usual_answers(size):
    """What is answered most often to each kind of question, from training scenes."""
    rng, usual = np.random.default_rng(3), {}
    for kind in scene_text.QUESTIONS:
        seen = {}
        for seed in range(400):
            got = scene_text.question(scenes.sample_scene(seed, *size), rng, kind)
            if got:
                seen[got[1]] = seen.get(got[1], 0) + 1
        usual[kind] = max(seen, key=seen.get)
    return usual


def questions(backend, n, size):
    """Exact match; n scenes a kind. Second turns come after the model's own first answer."""
    kinds, usual, asked = list(scene_text.QUESTIONS), _usual_answers(size), []
    for k, kind in enumerate(kinds):
        for i in range(n):
            scene = scene_at(k * 10 ** 5 + i, size)
            got = scene_text.question(scene, text_generator(k * 10 ** 5 + i), kind)
            if got:
                asked.append((kind, scene, got))
    answers = backend.ask([(scenes.render_rgb(s), [(q, None)]) for _, s, (q, _) in asked])
    got, bare = {k: Share() for k in kinds + ["all"]}, {k: Share() for k in kinds + ["all"]}
    for (kind, _, (_, true)), answer in zip(asked, answers):
        for key in (kind, "all"):
            got[key].add(answer == true)
            bare[key].add(usual[kind] == true)
    return [line(f"questions: {k}", got[k], bare[k]) for k in kinds + ["all"]]


def second_turns(backend, n, size):
    asked = []
    for i in range(2 * n):
        scene = scene_at(2 * 10 ** 6 + i, size)
        turns = scene_text.two_turns(scene, text_generator(2 * 10 ** 6 + i))
        if turns and len(asked) < n:
            asked.append((scenes.render_rgb(scene), turns))
    first = backend.ask([(p, [(t[0][0], None)]) for p, t in asked])
    second = backend.ask([(p, [(t[0][0], a), (t[1][0], None)]) for (p, t), a in zip(asked, first)])
    one, two = Share(), Share()
    for (_, turns), a, b in zip(asked, first, second):
        one.add(a == turns[0][1])
        two.add(b == turns[1][1])
    return [line("two turns: the first", one), line("two turns: the second", two)]


# The codec alone ----------------------------------------------------------------------------------------------

def codec(backend, n, size):
    out = []
    for kind in scenes.KINDS:
        got, objects, bare = Mean(), Mean(), Mean()
        batch = [scene_at(3 * 10 ** 6 + i, size) for i in range(n)]
        pictures = [scenes.RENDER[kind](s) for s in batch]
        empty = scenes.RENDER[kind](scenes.Scene(*size, ()))
        for scene, x, y in zip(batch, pictures, backend.round_trip(pictures)):
            error, mask = (x.astype(float) - y) ** 2, scenes.things_mask(scene)
            got.add(error.mean())
            objects.add(error[mask].mean())
            bare.add(((x.astype(float) - empty) ** 2).mean())
        for figure in (got, objects, bare):
            figure.join = lambda rows: 10 * math.log10(255 ** 2 / max(1e-9, rows.mean()))
        out += [line(f"PSNR of {kind}, dB", got, bare), line(f"PSNR of {kind} on object pixels, dB", objects)]
    return out
