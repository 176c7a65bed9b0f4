"""What can truly be said of a scene, in a small grammar that both speaks and judges.

A frame is a sentence with holes: a tuple of slots, each slot the tuple of phrases that are true there. One
phrase from every slot says something true; all of them list everything true. So the captions of a scene and
the judgement of generated ones come from the same lines and cannot disagree.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from img2seq.demo.scenes import Group, Scene

Slot = tuple[str, ...]
Frame = tuple[Slot, ...]

NUMBERS = {2: "two", 3: "three", 4: "four"}
COLLECTIVES = {2: "a pair of", 3: "a group of three", 4: "a group of four"}
PLURALS = {"fish": "fish"}
SIZES: dict[str, Slot] = {"small": ("small", "little"), "large": ("large", "big"), "": ("",)}
TAILS = {"striped": "with stripes", "spotted": "with spots"}
# What one thing does before a background, what several do, what they are doing; and where that is.
BACKGROUNDS: dict[str, tuple[Slot, Slot]] = {
    "sky": (("floats", "float", "floating"), ("in the sky", "in the blue sky", "against a blue sky")),
    "night": (("floats", "float", "floating"), ("in the night sky", "in the dark sky", "in the dark")),
    "grass": (("sits", "sit", "sitting"), ("on the grass", "on green grass", "in a green field")),
    "sand": (("rests", "rest", "resting"), ("on the sand", "on a sandy beach", "at the beach")),
    "water": (("floats", "float", "floating"), ("on the water", "on the sea", "on blue water")),
    "wall": (("hangs", "hang", "hanging"), ("on a brick wall", "against a brick wall", "on a wall")),
    "snow": (("sits", "sit", "sitting"), ("in the snow", "on white snow", "on the snow")),
}
# Where groups[0] is from groups[1], then where groups[1] is from groups[0]; the most precise words first.
RELATIONS: dict[str, tuple[Slot, Slot]] = {
    "left": (("to the left of", "next to", "beside"), ("to the right of", "next to", "beside")),
    "above": (("above", "over"), ("below", "under")),
    "front": (("in front of",), ("behind",)),
    "inside": (("inside", "in the middle of"), ("around",)),
}
SIDES = {"left": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}


def captions(scene: Scene) -> tuple[str, str, str, str, str]:
    """Return five distinct true captions, as from five annotators; the first leaves no detail out.

    Tokens are separated by spaces and the last is ".", as in Flickr8k.
    """
    rng = random.Random(f"captions {scene.jitter}")
    said = [_say(rng, rng.choice(_frames(scene, full=True)[:2]))]
    frames = _frames(scene)
    while len(said) < 5:
        # Every frame once before any twice: five people seldom build the same sentence.
        for frame in rng.sample(frames, len(frames)):
            caption = _say(rng, frame)
            if caption not in said:
                said.append(caption)
    one, two, three, four, five = said[:5]
    return one, two, three, four, five


def true_captions(scene: Scene) -> frozenset[str]:
    """Return all that the grammar can truly say of a scene: every group named, details given or left out."""
    return frozenset(_sentence(words) for frame in _frames(scene) for words in itertools.product(*frame))


def is_true(scene: Scene, caption: str) -> bool:
    """Return whether a generated caption is among the true ones; letter case and punctuation do not count.

    Strict: words outside the grammar are False even where a person would let them pass.
    """
    return _bare(caption) in map(_bare, true_captions(scene))


def _frames(scene: Scene, *, full: bool = False) -> list[Frame]:
    """Return the sentences that fit the scene; with `full`, the first two of them leave no detail out."""
    verbs, places = BACKGROUNDS[scene.background]
    maybe = places if full else (*places, "")
    names = [_name(group, verbs, full=full) for group in scene.groups]
    if len(names) == 1:
        (it,) = names
        return [
            (it.tailed, it.verb, places),
            (it.tailed, it.be, verbs[2:], places),
            (it.tailed, maybe),
            (("there",), it.be, it.tailed, places),
            (places, (", there",), it.be, it.tailed),
            (("a picture of",), it.loose, maybe),
        ]
    forth, back = RELATIONS[scene.relation]
    ways = [(names[0], forth, names[1]), (names[1], back, names[0])]
    if full:
        ways = [(a, how[:1], b) for a, how, b in ways]
    frames: list[Frame] = [(a.tailed, a.verb + a.be, how, b.loose, maybe) for a, how, b in ways]
    for a, how, b in ways:
        frames += [
            (a.loose, how, b.loose, maybe),
            (("there",), a.be, a.tailed, how, b.loose, maybe),
            (places, (",",), a.tailed, a.be, how, b.loose),
            (a.plain, ("and",), b.plain, maybe),
        ]
    if scene.relation in SIDES:
        (a, b), (here, there) = names, SIDES[scene.relation]
        frames.append((a.plain, (f"{here} and",), b.plain, (there,)))
        frames.append((b.plain, (f"{there} and",), a.plain, (here,)))
    return frames


@dataclass(frozen=True)
class _Name:
    """The ways to name one group, and the verb forms that agree with it."""

    plain: Slot  # "two red striped fish": ends in its noun, as it must before "on the left"
    tailed: Slot  # also "two red fish with stripes"
    loose: Slot  # also "a pair of red fish", which governs no verb: is it one or two?
    be: Slot
    verb: Slot


def _name(group: Group, verbs: Slot, *, full: bool) -> _Name:
    one = group.count == 1
    noun = group.shape if one else PLURALS.get(group.shape, f"{group.shape}s")
    sizes = SIZES[group.size]
    bare, worn = f"{group.colour} {noun}", f"{group.colour} {group.texture} {noun}"
    heads: Slot = (worn,) if group.texture else (bare,)
    tails: Slot = (f"{bare} {TAILS[group.texture]}",) if group.texture else ()
    if not full:
        sizes = tuple(dict.fromkeys((*sizes, "")))
        heads = tuple(dict.fromkeys((*heads, bare)))
    plain = tuple(_counted(group.count, f"{size} {head}".strip()) for size in sizes for head in heads)
    tailed = (*plain, *(_counted(group.count, f"{size} {tail}".strip()) for size in sizes for tail in tails))
    loose = tailed if one else (*tailed, *(f"{COLLECTIVES[group.count]} {head}" for head in heads))
    return _Name(plain, tailed, loose, ("is",) if one else ("are",), verbs[:1] if one else verbs[1:2])


def _counted(count: int, words: str) -> str:
    if count > 1:
        return f"{NUMBERS[count]} {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _say(rng: random.Random, frame: Frame) -> str:
    return _sentence([rng.choice(slot) for slot in frame])


def _sentence(words: tuple[str, ...] | list[str]) -> str:
    text = " ".join(word for word in words if word)
    return f"{text[0].upper()}{text[1:]} ."


def _bare(caption: str) -> str:
    return " ".join(caption.lower().replace(",", " ").replace(".", " ").split())
