"""What is in a scene: one or two groups of things, how they stand to each other, and what is behind them.

A scene is a pure function of (seed, index). Its `content` is everything a caption may speak of; `jitter`
moves the pixels and varies the wording, so that pictures cannot be learned by heart. The choices are few on
purpose: a small network has to learn them in minutes from a few thousand pictures of 64 pixels.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

SHAPES = ("ball", "star", "ring", "house", "tree", "boat", "fish", "car")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
TEXTURES = ("striped", "spotted")
BACKGROUNDS = ("sky", "night", "grass", "sand", "water", "wall", "snow")

# One content in five belongs to validation, whatever the seed and however many scenes are written.
VALIDATION_ONE_IN = 5


@dataclass(frozen=True)
class Group:
    """`count` equal things; `size` is "small" or "large" for a single thing and "" for several."""

    shape: str
    colour: str
    count: int
    size: str
    texture: str  # "" is plain


@dataclass(frozen=True)
class Scene:
    """One or two groups before a background.

    `relation` is where groups[0] is from groups[1]: "left", "above", "front", "inside"; "" for one group.
    """

    groups: tuple[Group, ...]
    relation: str
    background: str
    jitter: int

    @property
    def content(self) -> str:
        """Everything that captions may speak of, as one line of text; without the jitter."""
        groups = (f"{g.count} {g.size} {g.colour} {g.texture} {g.shape}" for g in self.groups)
        return f" {self.relation} ".join(groups) + f" on {self.background}"

    @property
    def is_validation(self) -> bool:
        """Whether this content is held out from training; equal contents are always on the same side."""
        digest = hashlib.sha256(self.content.encode()).digest()
        return int.from_bytes(digest[:4]) % VALIDATION_ONE_IN == 0


def scene(seed: int, index: int) -> Scene:
    """Return scene number `index` of the endless series that `seed` names."""
    rng = random.Random(f"scene {seed} {index}")
    background = rng.choice(BACKGROUNDS)
    relation = rng.choice(("", "", "", "", "", "", "left", "left", "above", "above", "inside", "front"))
    shapes = rng.sample(SHAPES, 2)
    colours = rng.sample(COLOURS, 2)
    texture = rng.choice(TEXTURES) if rng.random() < 0.4 else ""
    if relation in ("front", "inside"):
        # A small thing on a large one shows both; a ring has no middle to stand in front of.
        small, large = rng.sample([shape for shape in SHAPES if shape != "ring"], 2)
        large = "ring" if relation == "inside" else large
        groups = [Group(small, colours[0], 1, "small", ""), Group(large, colours[1], 1, "large", texture)]
    else:
        # Up to four alone, up to three beside others: smaller things would be hard to tell apart.
        counts = (1, 1, 2, 3) if relation else (1, 1, 2, 3, 4)
        groups = [_group(rng, shapes[0], colours[0], texture, counts)]
        if relation:
            # Two textures in one picture would be more than people say in one breath.
            groups.append(_group(rng, shapes[1], colours[1], "", counts))
            rng.shuffle(groups)
    return Scene(tuple(groups), relation, background, rng.getrandbits(32))


def _group(rng: random.Random, shape: str, colour: str, texture: str, counts: tuple[int, ...]) -> Group:
    count = rng.choice(counts)
    size = rng.choice(("small", "large")) if count == 1 else ""
    # A texture on a small thing would be a blur at 64 pixels: small things are plain.
    return Group(shape, colour, count, size, "" if size == "small" else texture)
