"""The pixels of a scene: stickers with a white rim and a soft shadow before a background.

Things are drawn large and reduced, which smooths their edges; the rim parts a blue fish from blue water.
"""

from __future__ import annotations

import math
import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from img2seq.demo.scenes import Group, Scene
from img2seq.demo.shapes import BACKDROPS, INK, PAINT, PARTS, WHITE, Colour

Spot = tuple[float, float, float]  # x, y, radius in parts of the picture

SMOOTH = 3  # pixels drawn per pixel kept, each way
# The part of the picture a group has to itself (left, top, right, bottom), by relation.
BOXES = {
    "": [(0.04, 0.04, 0.96, 0.96)],
    "left": [(0.03, 0.04, 0.49, 0.96), (0.51, 0.04, 0.97, 0.96)],
    "above": [(0.04, 0.03, 0.96, 0.49), (0.04, 0.51, 0.96, 0.97)],
}
# How many rows 1, 2, 3 (and, with nothing beside them, 4) things can stand in, by relation.
ROWS = {"": [(1,), (1, 2), (1, 2), (2,)], "left": [(1,), (2,), (2, 3)], "above": [(1,), (1,), (1, 2)]}
RADII = {"small": (0.125, 0.15), "large": (0.2, 0.33), "": (0.1, 0.19)}


def draw(scene: Scene, size: int = 128) -> Image.Image:
    """Return the picture of a scene: RGB, `size` pixels square, the same at every call."""
    rng = random.Random(f"draw {scene.jitter}")
    image = _background(rng, scene.background, size)
    for group, (x, y, radius) in _placed(rng, scene):
        _stick(rng, image, group, x * size, y * size, radius * size)
    return image


def _placed(rng: random.Random, scene: Scene) -> list[tuple[Group, Spot]]:
    """Return every thing with its place, those behind first."""
    if scene.relation in BOXES:
        boxes = zip(scene.groups, BOXES[scene.relation], strict=True)
        return [(group, spot) for group, box in boxes for spot in _spread(rng, group, scene.relation, box)]
    small, large = scene.groups
    x, y = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)
    dx, dy = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)
    if scene.relation == "front":
        dx, dy = rng.choice((-1, 1)) * rng.uniform(0.1, 0.2), rng.uniform(0.16, 0.24)
    spot = (x + dx, y + dy, rng.uniform(0.13, 0.15))
    return [(large, (x, y, rng.uniform(0.3, 0.36))), (small, spot)]


def _spread(rng: random.Random, group: Group, relation: str, box: tuple[float, float, float, float]) -> list[Spot]:
    """Return the place of each thing of a group: in cells of a grid over the box, so that none overlap."""
    left, top, right, bottom = box
    if relation and group.count == 1:
        # Keeps "next to" and "above" true: a single thing does not stray into a far corner.
        left, top, right, bottom = (left, 0.2, right, 0.8) if relation == "left" else (0.2, top, 0.8, bottom)
    rows = rng.choice(ROWS[relation][group.count - 1])
    columns = math.ceil(group.count / rows)
    width, height = (right - left) / columns, (bottom - top) / rows
    least, most = RADII[group.size]
    radius = max(least, min(width / 2, height / 2, most) * rng.uniform(0.8, 0.95))
    spots = []
    for cell in sorted(rng.sample(range(rows * columns), group.count)):
        x, y = left + width * (cell % columns + 0.5), top + height * (cell // columns + 0.5)
        dx, dy = width / 2 - radius, height / 2 - radius
        spots.append((x + rng.uniform(-dx, dx), y + rng.uniform(-dy, dy), radius))
    return spots


def _stick(rng: random.Random, image: Image.Image, group: Group, x: float, y: float, radius: float) -> None:
    """Put one thing on the image at (x, y), with its rim and its shadow; all in pixels."""
    rim = max(1, round(image.width / 100))
    half = math.ceil(radius * 1.12) + rim + 1
    tile, mask = _cut(rng, group, radius * SMOOTH, half * SMOOTH)
    dusk = ImageChops.multiply(tile, ImageChops.invert(_ramp(tile.width).convert("RGB")))
    tile = Image.blend(tile, dusk, 0.2)
    rimmed = mask.filter(ImageFilter.MaxFilter(2 * rim + 1))
    shadow = ImageChops.darker(rimmed, Image.new("L", rimmed.size, 84))
    left, top = round(x) - half, round(y) - half
    image.paste((20, 24, 40), (left + rim, top + 2 * rim), shadow)
    image.paste(WHITE, (left, top), rimmed)
    image.paste(tile, (left, top), mask)


def _cut(rng: random.Random, group: Group, radius: float, half: int) -> tuple[Image.Image, Image.Image]:
    """Return one thing's colours (RGB) and where it is (L), reduced; `radius` and `half` in drawn pixels."""
    colour, shade, spots = PAINT[group.colour]
    tile = Image.new("RGB", (2 * half, 2 * half), colour)
    mask = Image.new("L", tile.size, 0)
    paint, cut = ImageDraw.Draw(tile), ImageDraw.Draw(mask)
    _texture(rng, paint, group.texture, spots, radius)
    turn, flip = rng.uniform(-0.08, 0.08), rng.choice((-1, 1))
    c, s = radius * math.cos(turn), radius * math.sin(turn)
    fills: dict[str | Colour, Colour] = {"shade": shade, "shine": WHITE}
    fills["face"] = WHITE if group.colour == "black" else INK
    for fill, outline in PARTS[group.shape]:
        if group.texture and fill in ("face", "shine"):
            continue
        points = [(half + flip * px * c - py * s, half + flip * px * s + py * c) for px, py in outline]
        cut.polygon(points, fill=0 if fill == "hole" else 255)
        if fill not in ("body", "hole"):
            paint.polygon(points, fill=fills.get(fill) or fill)
    return tile.reduce(SMOOTH), mask.reduce(SMOOTH)


def _texture(rng: random.Random, paint: ImageDraw.ImageDraw, texture: str, spots: Colour, radius: float) -> None:
    """Cover the tile with a texture as coarse as the thing is large, so that 64 pixels still show it."""
    shift = rng.uniform(0, 0.4) * radius
    for i in range(9):
        if texture == "striped":
            y = 0.62 * i * radius - shift
            paint.line([(0, y), (3 * radius, y)], fill=WHITE, width=round(0.29 * radius))
        for j in range(9 if texture == "spotted" else 0):
            x, y = (0.62 * j + 0.31 * (i % 2)) * radius - shift, 0.52 * i * radius - shift / 2
            dot = 0.19 * radius
            paint.ellipse((x - dot, y - dot, x + dot, y + dot), fill=spots)


def _background(rng: random.Random, name: str, size: int) -> Image.Image:
    top, bottom, marks, ink, outlines = BACKDROPS[name]
    side = 2 * size
    unit = side / 12
    image = Image.new("RGB", (side, side), top)
    image.paste(bottom, mask=_ramp(side))
    pen = ImageDraw.Draw(image)
    spots = [(rng.uniform(0, side), rng.uniform(0, side)) for _ in range(marks)]
    if name == "wall":
        shift = rng.uniform(0, 2.6)
        bricks = [(column + row % 2 / 2, row) for row in range(10) for column in range(-1, 6)]
        spots = [((2.6 * x - shift) * unit, 1.2 * y * unit) for x, y in bricks]
    for x, y in spots:
        for outline in outlines:
            pen.polygon([(x + px * unit, y + py * unit) for px, py in outline], fill=ink)
    if name == "sand":
        sea = rng.uniform(1, 1.7) * unit
        pen.rectangle((0, 0, side, sea), fill=(63, 167, 196))
        pen.rectangle((0, sea, side, sea + unit / 4), fill=WHITE)
    return image.reduce(2)


def _ramp(side: int) -> Image.Image:
    """Return a square that goes from 0 at the top to 255 at the bottom."""
    return Image.linear_gradient("L").resize((side, side), Image.Resampling.NEAREST)
