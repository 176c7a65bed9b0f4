"""What things and backgrounds look like: colours, and outlines in coordinates from -1 to 1 with y down."""

from __future__ import annotations

import math

Colour = tuple[int, int, int]
Outline = list[tuple[float, float]]

WHITE: Colour = (255, 255, 255)
CREAM, DUSK = (255, 226, 110), (74, 30, 40)
# For each colour: the thing itself, its other tone, its spots. Stripes are white: the tint tells the texture
# where a thing is too small to show it.
PAINT: dict[str, tuple[Colour, Colour, Colour]] = {
    "red": ((222, 44, 44), (166, 30, 34), CREAM),
    "orange": ((250, 134, 18), (206, 98, 12), DUSK),
    "yellow": ((252, 206, 24), (226, 168, 22), DUSK),
    "green": ((42, 158, 66), (28, 116, 48), CREAM),
    "blue": ((36, 92, 214), (24, 64, 160), CREAM),
    "purple": ((130, 54, 178), (94, 36, 132), CREAM),
    "pink": ((252, 138, 190), (226, 92, 156), DUSK),
    "black": ((40, 40, 46), (84, 84, 94), CREAM),
}
WOOD, INK = (112, 68, 36), (30, 30, 36)


def _oval(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Outline:
    turns = [math.radians(start + (end - start) * i / 24) for i in range(25)]
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def _rect(left: float, top: float, right: float, bottom: float) -> Outline:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star() -> Outline:
    spokes = [(math.pi * i / 5, 0.5 if i % 2 else 1.05) for i in range(10)]
    return [(r * math.sin(t), 0.06 - r * math.cos(t)) for t, r in spokes]


# The parts of each shape in drawing order: "body" has the group's colour and texture, "shade" is the other
# tone, "hole" is cut out, "face" and "shine" adorn plain things only, and a colour is itself. Fixed colours
# (a trunk, a hull, wheels) are what a small network first tells shapes by.
PARTS: dict[str, list[tuple[str | Colour, Outline]]] = {
    "ball": [("body", _oval(0, 0, 0.95, 0.95)), ("shine", _oval(-0.4, -0.42, 0.26, 0.2))],
    "star": [
        ("body", _star()),
        ("face", _oval(-0.22, -0.1, 0.1, 0.15)),
        ("face", _oval(0.22, -0.1, 0.1, 0.15)),
        ("face", _oval(0, 0.14, 0.24, 0.22, 0, 180)),
    ],
    "ring": [("body", _oval(0, 0, 1, 1)), ("hole", _oval(0, 0, 0.58, 0.58))],
    "house": [
        ("body", _rect(-0.74, -0.12, 0.74, 0.92)),
        ((88, 92, 108), [(-1, -0.08), (0, -0.98), (1, -0.08)]),
        ((255, 243, 207), _oval(0, -0.38, 0.17, 0.17)),
        (WOOD, _rect(-0.2, 0.35, 0.2, 0.92)),
    ],
    "tree": [
        ("body", [(-0.85, 0.62), (0, -0.5), (0.85, 0.62)]),
        ("body", [(-0.64, 0.02), (0, -1), (0.64, 0.02)]),
        (WOOD, _rect(-0.2, 0.58, 0.2, 1.02)),
    ],
    "boat": [
        (WOOD, _rect(-0.07, -1, 0.05, 0.4)),
        ("body", [(0.13, -0.92), (0.13, 0.26), (0.88, 0.26)]),
        ("body", [(-0.15, -0.6), (-0.15, 0.26), (-0.7, 0.26)]),
        (WOOD, [(-1, 0.32), (1, 0.32), (0.66, 0.95), (-0.66, 0.95)]),
    ],
    "car": [
        ("body", [(-0.62, -0.05), (-0.4, -0.68), (0.3, -0.68), (0.62, -0.05)]),
        ("body", _rect(-1, -0.1, 1, 0.48)),
        ((206, 236, 250), [(-0.46, -0.08), (-0.31, -0.54), (0.22, -0.54), (0.44, -0.08)]),
        (INK, _oval(-0.52, 0.46, 0.3, 0.3)),
        (INK, _oval(0.52, 0.46, 0.3, 0.3)),
        ((225, 225, 230), _oval(-0.52, 0.46, 0.13, 0.13)),
        ((225, 225, 230), _oval(0.52, 0.46, 0.13, 0.13)),
    ],
    "fish": [
        ("shade", [(0.5, 0), (1, -0.55), (0.85, 0), (1, 0.55)]),
        ("shade", [(-0.4, -0.48), (0.15, -0.82), (0.25, -0.46)]),
        ("body", _oval(-0.2, 0, 0.8, 0.56)),
        (WHITE, _oval(-0.6, -0.12, 0.22, 0.22)),
        (INK, _oval(-0.63, -0.12, 0.12, 0.12)),
    ],
}

# For each background: its colour at the top and at the bottom, the number of its marks, their colour and
# their outlines, where one unit is a twelfth of the picture.
Backdrop = tuple[Colour, Colour, int, Colour, list[Outline]]
DOT = [[(-0.09, 0.0), (0.0, -0.09), (0.09, 0.0), (0.0, 0.09)]]
BLADE = [[(-0.08, 0.0), (0.08, 0.0), (0.14, -0.6)]]
CLOUD = [_oval(x, -r / 4, r, r * 0.8) for x, r in ((-1.1, 0.6), (0, 1), (1.1, 0.7), (1.9, 0.45))]
BRICK = [_rect(0.09, 0.09, 2.55, 1.15)]
WAVE = [_oval(x, 0, 0.6, 0.6, 30, 150) + _oval(x, -0.12, 0.6, 0.6, 150, 30) for x in (-0.52, 0.52)]
BACKDROPS: dict[str, Backdrop] = {
    "sky": ((106, 178, 240), (186, 222, 250), 4, (244, 249, 255), CLOUD),
    "night": ((14, 16, 48), (46, 42, 100), 60, (246, 239, 192), DOT),
    "grass": ((150, 202, 92), (104, 168, 62), 90, (76, 143, 53), BLADE),
    "sand": ((242, 222, 174), (224, 192, 132), 60, (185, 143, 85), DOT),
    "water": ((38, 150, 182), (18, 98, 150), 26, (143, 214, 230), WAVE),
    "wall": ((227, 207, 192), (227, 207, 192), 0, (180, 108, 88), BRICK),
    "snow": ((222, 233, 245), (248, 251, 255), 60, (180, 200, 222), DOT),
}
