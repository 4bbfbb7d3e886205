"""Training sequences, made as they are needed and never twice the same.

In:  a vocabulary, a seed.  Out: rows of packed documents: ids, positions, document numbers, loss weights.
The code of a patch is its number (patches.py), so no encoder runs here. Pictures that are looked at get a few
wrong codes, as a real encoder errs now and then.
"""
import numpy as np
import patches
import scene_text
import scenes
from tokens import DENSE, FROM_MAP

# (w, h) and how often, by stage of FP-SFT: the target sizes 96, 128 and 192 with free aspect ratios. 128x192 and 192x128 are left for the test;
# what lies around them is there, for a size is met as two tokens, and every pair of them that is missing has to be guessed.
STAGE_SIZES = {
    96: (((96, 96), 4), ((128, 64), 1), ((64, 128), 1)),
    128: (((128, 128), 8), ((160, 96), 2), ((96, 160), 2), ((128, 96), 1), ((96, 128), 1), ((192, 64), .5), ((64, 192), .5), ((96, 96), 1)),
    192: (((192, 192), 3), ((224, 160), 1), ((160, 224), 1), ((160, 160), 1), ((256, 128), .5), ((128, 256), .5),
          ((128, 160), 1), ((160, 128), 1), ((96, 192), 1), ((192, 96), 1), ((160, 192), 1), ((192, 160), 1), ((128, 224), 1), ((224, 128), 1)),
}
# Looking back at a given picture is learnt at one distance first, that is at one size.
FIRST_OMNI_SIZES = (((128, 128), 8), ((160, 96), .7), ((96, 160), .7), ((96, 96), .6))
TASKS = {"draw": 30, "segmentation": 13, "depth": 10, "normals": 10, "from map": 14, "questions": 23}
# Maps of a picture are learnt soonest; the rest belongs to what words have to be bound to objects for.
LATER_TASKS = {"draw": 48, "segmentation": 7, "depth": 3, "normals": 4, "from map": 6, "questions": 32}
LAST_TASKS = {"draw": 36, "segmentation": 4, "depth": 2, "normals": 3, "from map": 4, "questions": 51}
# Who stands left of whom is learnt last, and a second turn; counting comes by itself.
KIND_SHARE = {"count": .4, "count of a kind": .6, "colour": 1, "shape": 1, "size": .8, "relation": 6, "existence": 1.2}
TWO_TURNS_SHARE = 0.35
QUESTION_WEIGHT = 5.0
PROMPT_DROP = 0.1
HELD_OUT = 10 ** 9              # seeds from here on are never trained on
WRONG_CODES = 0.004


# Documents: (ids, weights); a weight belongs to the token itself, as the thing to be predicted ----------------

class Documents:
    def __init__(self, vocabulary, seed):
        self.v, self.rng = vocabulary, np.random.default_rng([7, seed])

    def scene(self, sizes):
        share = np.array([s for _, s in sizes], float)
        size = sizes[self.rng.choice(len(sizes), p=share / share.sum())][0]
        return scenes.sample_scene(int(self.rng.integers(HELD_OUT)), *size)

    def seen(self, scene, kind):
        grid = patches.grid(scene, kind)
        wrong = self.rng.random(grid.shape) < WRONG_CODES
        return np.where(wrong, self.rng.integers(patches.count(), size=grid.shape), grid)

    def drawn(self, scene, kind):
        return self.v.picture(patches.grid(scene, kind))

    def answer(self, prompt, picture):
        """A prompt without loss, a picture with; now and then the picture alone, as guidance wants it."""
        if self.rng.random() < PROMPT_DROP:
            return picture, [0.0] * 3 + [1.0] * (len(picture) - 3)
        return prompt + picture + [self.v.eot], [0.0] * len(prompt) + [1.0] * (len(picture) + 1)

    def draw(self, scene):
        text, _ = scene_text.caption(scene, self.rng)
        return self.answer(self.v.draw_prompt(text, scene.width, scene.height), self.drawn(scene, "rgb"))

    def from_map(self, scene):
        text, _ = scene_text.caption(scene, self.rng)
        return self.answer(self.v.picture_prompt(FROM_MAP.format(text), self.seen(scene, "segmentation")), self.drawn(scene, "rgb"))

    def dense(self, scene, kind):
        prompt = self.v.picture_prompt(DENSE[kind], self.seen(scene, "rgb"))
        picture = self.drawn(scene, kind)
        return prompt + picture + [self.v.eot], [0.0] * len(prompt) + [1.0] * (len(picture) + 1)

    def questions(self, scene):
        kinds, share = list(KIND_SHARE), np.array(list(KIND_SHARE.values()), float)
        turns = []
        for _ in range(int(self.rng.integers(4, 9))):
            if self.rng.random() < TWO_TURNS_SHARE:
                turns += scene_text.two_turns(scene, self.rng) or []
            else:
                got = scene_text.question(scene, self.rng, kinds[self.rng.choice(len(kinds), p=share / share.sum())])
                turns += [got] if got else []
        ids = [self.v.start] + self.v.picture(self.seen(scene, "rgb"))
        weights = [0.0] * len(ids)
        for i, (q, a) in enumerate(turns):
            q, a = self.v.text(q if i else " " + q) + [self.v.eot], self.v.text(a) + [self.v.eot]
            ids, weights = ids + q + a, weights + [0.0] * len(q) + [QUESTION_WEIGHT] * len(a)
        return ids, weights

    def make(self, tasks, sizes):
        names, share = list(tasks), np.array(list(tasks.values()), float)
        task = names[self.rng.choice(len(names), p=share / share.sum())]
        scene = self.scene(sizes)
        if task in ("segmentation", "depth", "normals"):
            return self.dense(scene, task)
        return {"draw": self.draw, "from map": self.from_map, "questions": self.questions}[task](scene)


def pack(documents, rows, length, tasks, sizes):
    """-> ids, positions, documents' numbers (0: padding), targets' weights; each [rows, length]."""
    ids = np.full((rows, length), documents.v.pad, np.int64)
    positions, owner, weights = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64), np.zeros((rows, length), np.float32)
    used, misses, n = np.zeros(rows, int), 0, 0
    while misses < 20:
        tokens, w = documents.make(tasks, sizes)
        room = np.flatnonzero(used + len(tokens) <= length)
        if not len(room):
            misses += 1
            continue
        r = room[used[room].argmax()]           # the fullest row that still takes it
        at, n = slice(used[r], used[r] + len(tokens)), n + 1
        ids[r, at], positions[r, at], owner[r, at], weights[r, at] = tokens, np.arange(len(tokens)), n, w
        used[r] += len(tokens)
    return ids, positions, owner, weights
