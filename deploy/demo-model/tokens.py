"""The vocabulary of the demo model and the token sequences of its tasks.

In:  scenes' texts (to learn the byte-level BPE), texts and grids of codes.  Out: tokenizer.json, lists of ids.
Special tokens have the published names, as programs look them up by name; only their number is smaller.
Sequences are those of the published model: REFERENCE.md, "Tokens", "Uni-Rep" and "Conversation".
"""
import json
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
import scene_text
import scenes
from vqgan import N_EMBED

TEXT_TO_IMAGE = "Generate an image of {}x{} according to the following prompt:\n{}"
DENSE = {"segmentation": "Segmentic segmentation. ", "depth": "Depth estimation. ", "normals": "Surface normal estimation. "}
FROM_MAP = "Generate an image according to the provided image, and according to the following caption:\n{} "
LARGEST_SIDE = 16           # in units of 32 pixels: the size tokens of the vocabulary
MERGED_TOKENS = 700


def code_name(code):
    return "IMGIMG" + "".join("ABCDEFGHIJ"[int(c)] for c in str(code)) + "Z"


def reserved(n):
    return f"<reserved{n:05d}>"


def special_names():
    """Tokens that text may name as a whole: added tokens of the file, ordered as in the published vocabulary."""
    return (["<eoss>", "<racm3:break>", reserved(8706), reserved(8707)] + [reserved(n) for n in range(8796, 8800)]
            + [reserved(8800 + n) for n in range(LARGEST_SIDE + 1)])


def chameleon_splitter():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex("<sentinel:[0-9]+>"), "isolated"),
        pre_tokenizers.Split(Regex("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"), "isolated"),
        pre_tokenizers.Split(Regex("([\\t\\n]|    |  )"), "isolated"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def corpus(n):
    """Every kind of text the model meets, and a handful of sentences about the model itself."""
    rng = np.random.default_rng(5)
    yield from list(DENSE.values()) + ["Human pose estimation. Detect: the red cube. yes no nothing. Yes. No. A picture of one, two, three objects."] * 3
    for seed in range(n):
        scene = scenes.sample_scene(seed, 160, 96)
        text, _ = scene_text.caption(scene, rng)
        yield from (TEXT_TO_IMAGE.format(160, 96, text), FROM_MAP.format(text), text, text.capitalize() + ".")
        for kind in scene_text.QUESTIONS:
            got = scene_text.question(scene, rng, kind)
            if got:
                yield from (" " + got[0], *got)


def build_tokenizer(path):
    """Learns the merges and writes tokenizer.json. Specials and codes come first, then bytes and merged tokens."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = chameleon_splitter()
    learner.train_from_iterator(corpus(3000), trainers.BpeTrainer(vocab_size=MERGED_TOKENS, min_frequency=2, show_progress=False,
                                                                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    learnt = json.loads(learner.to_str())
    names = ["<s>", "<pad>", "</s>", "<unk>"] + [code_name(k) for k in range(N_EMBED)] + special_names()
    added = [n for n in names if not n.startswith("IMGIMG")]
    names += sorted(learnt["model"]["vocab"], key=learnt["model"]["vocab"].get)
    vocab = {n: i for i, n in enumerate(names)}
    learnt["model"]["vocab"] = vocab
    learnt["added_tokens"] = [{"id": vocab[n], "content": n, "single_word": False, "lstrip": False, "rstrip": False,
                               "normalized": False, "special": True} for n in added]
    learnt["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    with open(path, "w") as f:
        json.dump(learnt, f, ensure_ascii=False, indent=0)


class Vocabulary:
    """Ids by name, and text to ids."""

    def __init__(self, path):
        self.file = Tokenizer.from_file(path)
        look = self.file.token_to_id
        self.start, self.pad, self.eot = look("<s>"), look("<pad>"), look(reserved(8706))
        self.picture_start, self.picture_end, self.new_line = look("<racm3:break>"), look("<eoss>"), look(reserved(8799))
        self.sides = [look(reserved(8800 + n)) for n in range(LARGEST_SIDE + 1)]
        self.codes = np.array([look(code_name(k)) for k in range(N_EMBED)])
        self.size = (self.file.get_vocab_size() + 31) // 32 * 32
        self.seen = {}

    def text(self, s):
        if s not in self.seen:
            if len(self.seen) > 200000:
                self.seen.clear()
            self.seen[s] = self.file.encode(s, add_special_tokens=False).ids
        return self.seen[s]

    def picture_head(self, width, height):
        return [self.picture_start, self.sides[height // 32], self.sides[width // 32]]

    def picture(self, grid):
        """[rows, columns] of codes -> ids, from the start token to <eoss>."""
        rows, cols = grid.shape
        body = np.full((rows, cols + 1), self.new_line)
        body[:, :cols] = self.codes[grid]
        return self.picture_head(cols * 16, rows * 16) + body.reshape(-1).tolist() + [self.picture_end]

    def grid(self, ids, width, height):
        """The codes of a picture's body (from after the size tokens) as [rows, columns]."""
        rows, cols = height // 16, width // 16
        body = np.asarray(ids[:rows * (cols + 1)]).reshape(rows, cols + 1)[:, :cols]
        return body - self.codes[0]         # build_tokenizer lays codes out in order

    def draw_prompt(self, caption, width, height):
        return [self.start] + self.text(TEXT_TO_IMAGE.format(width, height, caption)) + [self.eot]

    def picture_prompt(self, before, grid):
        """A task's text, then the picture it is about."""
        return [self.start] + self.text(before) + self.picture(grid) + [self.eot]

    def question_prompt(self, grid, question):
        return [self.start] + self.picture(grid) + self.text(" " + question) + [self.eot]
