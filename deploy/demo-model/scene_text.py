"""What can be said about a scene: captions, and questions with their answers.

In:  a Scene and a numpy random generator.  Out: plain text, and for captions what the text promises.
A phrase names an object by some of size, colour and shape; a question only uses phrases that fit one object.
"""
from dataclasses import dataclass
from scenes import COLOURS, SHAPES, SIZES

ATTRIBUTES = ("size", "colour", "shape")
NUMBERS = "0123456789"


@dataclass(frozen=True)
class Claim:
    """What a caption promises: parts (attribute -> value) of each object, and order facts between them.

    facts: (i, word, j), word one of "left", "front"; objects are counted as in `parts`. A caption promises the
    number of objects too, for it names all of them."""
    parts: tuple
    facts: tuple


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def phrase(parts):
    """{"size": .., "colour": .., "shape": ..} with gaps -> "small red cube", "red object"."""
    return " ".join(parts[a] for a in ("size", "colour") if a in parts) + (" " if len(parts) > ("shape" in parts) else "") + parts.get("shape", "object")


def parts_of(thing, attributes):
    return {a: getattr(thing, a) for a in ATTRIBUTES if a in attributes}


def fits(thing, parts):
    return all(getattr(thing, a) == v for a, v in parts.items())


def is_left(a, b):
    return a.col + 2 <= b.col


def is_front(a, b):
    return a.row > b.row


# Captions ---------------------------------------------------------------------------------------------------

def _caption_parts(thing, rng):
    """Mostly all three attributes; sometimes the size is left open, seldom the colour."""
    drop = rng.random()
    return parts_of(thing, ("colour", "shape") if drop < 0.18 else ("size", "shape") if drop < 0.22 else ATTRIBUTES)


def _pair(a, b, things, rng):
    """Text of a relation between two objects as (words, fact); the words stand between their phrases."""
    i, j = things
    front = is_front(a, b) != is_front(b, a) and rng.random() < 0.2
    if front:
        word, fact = ("in front of", (i, "front", j)) if is_front(a, b) else ("behind", (j, "front", i))
    else:
        word, fact = ("left of", (i, "left", j)) if is_left(a, b) else ("right of", (j, "left", i))
        if rng.random() < 0.15:
            word = "to the " + word
    return word, fact


def caption(scene, rng):
    """-> (text, Claim). Core form: "a small red sphere left of a large blue cube"."""
    things = [scene.things[i] for i in rng.permutation(len(scene.things))]
    parts = [_caption_parts(t, rng) for t in things]
    names = [article(phrase(p)) for p in parts]
    facts = []
    if len(things) == 1:
        text = names[0]
    elif len(things) == 2:
        if rng.random() < 0.8:
            word, fact = _pair(*things, (0, 1), rng)
            text, facts = f"{names[0]} {word} {names[1]}", [fact]
        else:
            text = f"{names[0]} and {names[1]}"
    else:
        text, facts = _caption_of_three(things, names, rng)
    if rng.random() < 0.1:
        text = "a picture of " + text
    return text, Claim(tuple(tuple(p.items()) for p in parts), tuple(facts))


def _caption_of_three(things, names, rng):
    kind = rng.random()
    if kind < 0.3:
        return f"{names[0]}, {names[1]} and {names[2]}", []
    first, fact1 = _pair(things[0], things[1], (0, 1), rng)
    if kind < 0.6:
        return f"{names[0]} {first} {names[1]}, and {names[2]}", [fact1]
    second, fact2 = _pair(things[1], things[2], (1, 2), rng)
    return f"{names[0]} {first} {names[1]} {second} {names[2]}", [fact1, fact2]


def caption_holds(claim, things):
    """Whether found objects can be matched to the claim: returns (objects right, all facts right, count right).

    The matching that gets most objects right is taken, then the one of these with most facts right. A fact is
    right only between two right objects."""
    from itertools import permutations
    n, best = len(claim.parts), (0, 0)
    slots = list(things) + [None] * max(0, n - len(things))
    for choice in permutations(slots, n):
        good = [t is not None and fits(t, dict(p)) for t, p in zip(choice, claim.parts)]
        true = sum((is_left if word == "left" else is_front)(choice[i], choice[j])
                   for i, word, j in claim.facts if good[i] and good[j])
        best = max(best, (sum(good), true))
    return best[0], best[1], len(things) == n


# Questions --------------------------------------------------------------------------------------------------

def _unique_parts(scene, thing, rng, without=()):
    """A random shortest-or-longer set of attributes that fits this object alone; None when there is none."""
    usable = [a for a in ATTRIBUTES if a not in without]
    sets = [s for s in ((a,) for a in usable)] + [(a, b) for i, a in enumerate(usable) for b in usable[i + 1:]] + [tuple(usable)]
    good = [s for s in sets if s and sum(fits(t, parts_of(thing, s)) for t in scene.things) == 1]
    return parts_of(thing, good[int(rng.integers(len(good)))]) if good else None


def _pick(scene, rng):
    return scene.things[int(rng.integers(len(scene.things)))]


def ask_count(scene, rng):
    return "How many objects are there?", NUMBERS[len(scene.things)]


def ask_count_shape(scene, rng):
    """Half of the time about a kind that is there."""
    here = _pick(scene, rng)
    which = ("shape", "shape", "colour", "size")[int(rng.integers(4))]
    values = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES}[which]
    value = getattr(here, which) if rng.random() < 0.65 else values[int(rng.integers(len(values)))]
    noun = value + "s" if which == "shape" else value + " objects"
    return f"How many {noun} are there?", NUMBERS[sum(getattr(t, which) == value for t in scene.things)]


def _ask_attribute(attribute, question):
    def ask(scene, rng):
        thing = _pick(scene, rng)
        parts = _unique_parts(scene, thing, rng, without=(attribute,))
        return None if parts is None else (question.format(phrase(parts)), getattr(thing, attribute))
    return ask


ask_colour = _ask_attribute("colour", "What color is the {}?")
ask_shape = _ask_attribute("shape", "What shape is the {}?")
ask_size = _ask_attribute("size", "What size is the {}?")


def ask_relation(scene, rng):
    """Yes or no about two objects, or what stands on one side of an object."""
    if len(scene.things) < 2:
        return None
    a, b = (scene.things[i] for i in rng.permutation(len(scene.things))[:2])
    side, test = (("left of", is_left), ("right of", lambda x, y: is_left(y, x)))[int(rng.integers(2))]
    pb = _unique_parts(scene, b, rng)
    if rng.random() < 0.6:
        pa = _unique_parts(scene, a, rng)
        return None if pa is None or pb is None else (f"Is the {phrase(pa)} {side} the {phrase(pb)}?", "yes" if test(a, b) else "no")
    there = [t for t in scene.things if t is not b and test(t, b)]
    if pb is None or len(there) > 1:
        return None
    return f"What is {side} the {phrase(pb)}?", article(f"{there[0].colour} {there[0].shape}") if there else "nothing"


def ask_existence(scene, rng):
    """Yes half of the time; a no changes one attribute of what is there, or crosses two objects."""
    thing = _pick(scene, rng)
    attributes = (("colour", "shape"), ("size", "shape"), ("size", "colour"), ("shape",), ("colour",), ATTRIBUTES)[int(rng.integers(6))]
    parts = parts_of(thing, attributes)
    if rng.random() < 0.55:             # some of these find no change that makes it a no, and are drawn again
        change = attributes[int(rng.integers(len(attributes)))]
        values = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES}[change]
        for _ in range(6):
            value = getattr(_pick(scene, rng), change) if rng.random() < 0.5 else values[int(rng.integers(len(values)))]
            if not any(fits(t, {**parts, change: value}) for t in scene.things):
                parts[change] = value
                break
    return f"Is there {article(phrase(parts))}?", "yes" if any(fits(t, parts) for t in scene.things) else "no"


QUESTIONS = {"count": ask_count, "count of a kind": ask_count_shape, "colour": ask_colour, "shape": ask_shape,
             "size": ask_size, "relation": ask_relation, "existence": ask_existence}


def question(scene, rng, kind):
    """-> (question, answer) of a kind, or None when this scene has none."""
    for _ in range(8):
        got = QUESTIONS[kind](scene, rng)
        if got:
            return got
    return None


def two_turns(scene, rng):
    """A question about one object, and a second that calls it "it": [(question, answer), (question, answer)] or None."""
    thing = _pick(scene, rng)
    first, second, third = (ATTRIBUTES[i] for i in rng.permutation(3))
    parts = _unique_parts(scene, thing, rng, without=(first, second))
    if parts is None:
        parts = _unique_parts(scene, thing, rng, without=(first, second)[:1])
        if parts is None:
            return None
    asked = next(a for a in (first, second, third) if a not in parts)
    left = [a for a in ATTRIBUTES if a not in parts and a != asked]
    name = {"size": "size", "colour": "color", "shape": "shape"}
    turns = [(f"What {name[asked]} is the {phrase(parts)}?", getattr(thing, asked))]
    others = [t for t in scene.things if t is not thing]
    if left and (not others or rng.random() < 0.6):
        return turns + [(f"What {name[left[0]]} is it?", getattr(thing, left[0]))]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    po = _unique_parts(scene, other, rng)
    if po is None:
        return None
    side, test = (("left of", is_left), ("right of", lambda x, y: is_left(y, x)))[int(rng.integers(2))]
    return turns + [(f"Is it {side} the {phrase(po)}?", "yes" if test(thing, other) else "no")]
