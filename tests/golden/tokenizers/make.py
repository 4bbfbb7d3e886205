#!/usr/bin/env python3
"""Records what HF tokenizers answers for other pre-tokenizers, models and added tokens than the published ones.

usage: python -m venv v && v/bin/pip install tokenizers==0.19.1 && v/bin/python make.py
Writes base.json (a small tokenizer) and cases.json: the texts, and for each case its "changes" to base.json (top-level fields; within
"model" single fields) and the ids of every text. Seeds are fixed.
"""
import copy, json, os, random
from tokenizers import Tokenizer

here = os.path.dirname(os.path.abspath(__file__))
random.seed(7)

def byte_characters():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, n = {}, 0
    for b in range(256):
        table[b] = chr(b) if b in keep else chr(256 + n)
        n += b not in keep
    return table

table = byte_characters()
vocab = {"<unk>": 0, "<end>": 1}
for c in list(table.values()) + [" ", "\n", "é", "北", "##a", "##b", "o</w>"]:
    vocab.setdefault(c, len(vocab))
merges = []
for a, b in [p.split() for p in ["Ġ t", "h e", "Ġt he", "i n", "a b", "ab a", "Ġ Ġ", "ĠĠ ĠĠ", "1 2", "Ã ©", "l l", "' s", ". ."]]:
    vocab.setdefault(a + b, len(vocab)); merges.append([a, b])
for b in range(256):
    if b != 0xf0:
        vocab.setdefault("<0x%02X>" % b, len(vocab))

def added(content, **flags):
    t = dict(id=vocab.get(content, len(vocab) + sum(t["content"] not in vocab for t in extra)), content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    t.update(flags); extra.append(t)

extra = []
added("<end>"); added("<ending>"); added("foo", single_word=True); added("bar", lstrip=True); added("baz", rstrip=True); added("foobar", normalized=True)
level = lambda space, regex: {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}
base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": extra, "normalizer": None, "pre_tokenizer": level(False, True), "post_processor": None,
        "decoder": level(True, True), "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": [" ".join(m) for m in merges]}}

fixed = ["", " ", "the cat in the hat", "  the   ll", "it's we'll", "naïve café", "北京 12 1234", "a..b... !?", "abab aba ababa", "x\n\ty\r\n", "½ ² Ⅳ ٣", "🦊🦊", "<end>foo bar",
         "foo foobar fooo <ending> bar  baz  x", "\u00a0\u3000\u180e", "_a-b_", "'", "A\u0301", "\x01\x7f"]
pool = list("abtheinl .,'!12\n\t") + ["  ", "    ", "é", "北", "🦊", "½", "²", "\u00a0", "_", "foo", "bar", "<end>", "—"]
texts = fixed + ["".join(random.choice(pool) for _ in range(random.randint(5, 40))) for _ in range(12)]

def sequence(*steps): return {"type": "Sequence", "pretokenizers": list(steps)}
def split(kind, text, behavior, invert=False): return {"type": "Split", "pattern": {kind: text}, "behavior": behavior, "invert": invert}

changes = [("base", {}), ("none", {"pre_tokenizer": None})]
for space in (False, True):
    for regex in (False, True):
        changes.append((f"byte level {space} {regex}", {"pre_tokenizer": level(space, regex)}))
for alone in (False, True):
    changes.append((f"digits {alone}", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": alone}, level(False, True))}))
changes.append(("digits then prefix", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, level(True, False))}))
llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
    changes.append((f"punctuation {behavior}", {"pre_tokenizer": sequence({"type": "Punctuation", "behavior": behavior}, level(False, False))}))
    changes.append((f"string {behavior}", {"pre_tokenizer": sequence(split("String", "a.", behavior), split("String", " ", behavior), level(False, False))}))
    for invert in (False, True):
        for regex in [r"\s", r"x*", r"(?=b)", r"\w+", r"[^\s\w]", r"^.|.$", llama3]:
            changes.append((f"regex {regex} {behavior} {invert}", {"pre_tokenizer": sequence(split("Regex", regex, behavior, invert), level(False, False))}))
for option in [dict(ignore_merges=True), dict(unk_token="<unk>"), dict(unk_token="<unk>", fuse_unk=True), dict(byte_fallback=True), dict(byte_fallback=True, unk_token="<unk>"),
               dict(continuing_subword_prefix="##", merges=[], unk_token="<unk>"), dict(end_of_word_suffix="</w>", unk_token="<unk>"), dict(merges=merges)]:
    for name, pre in [("none", None), ("byte level", level(False, True))]:
        changes.append((f"model {sorted(option)} {name}", {"pre_tokenizer": pre, "model": option}))

cases = []
for name, change in changes:
    spec = copy.deepcopy(base)
    for key, value in change.items():
        if key == "model": spec["model"].update(value)
        else: spec[key] = value
    if isinstance(spec["model"]["merges"][:1] and spec["model"]["merges"][0], list): spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]      # 0.19.1 reads strings only
    t = Tokenizer.from_str(json.dumps(spec))
    cases.append({"name": name, "changes": change, "ids": [t.encode(x, add_special_tokens=False).ids for x in texts]})
json.dump(base, open(here + "/base.json", "w"), ensure_ascii=True)
json.dump({"texts": texts, "cases": cases}, open(here + "/cases.json", "w"), ensure_ascii=True, separators=(",", ":"))
print(len(cases), "cases x", len(texts), "texts")
