"""Pictures with what was generated and what people wrote beneath them."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from img2seq.data.image import convert, opened, upright
from img2seq.data.picture import Picture

CELL_WIDTH, PICTURE_HEIGHT, MARGIN, LINE = 300, 225, 18, 18
CHARACTERS = 38
INK, QUIET, PAPER, FRAME = "#22252a", "#6b7079", "#ffffff", "#e3e4e7"


@dataclass(frozen=True)
class Sample:
    """One generated caption with its picture, where there is one, and what people wrote."""

    image_id: str
    generated: str
    true: Sequence[str]
    picture: Image.Image | None


def draw_grid(samples: Sequence[Sample], *, title: str, columns: int = 4) -> Image.Image:
    """Return one picture with all samples in a grid that a person can read."""
    font = font_with("".join(text for sample in samples for text in (sample.generated, *sample.true)))
    regular, bold = (_font(name if font is None else font, 14) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"))
    blocks = [_lines(sample) for sample in samples]
    text_height = LINE * max((len(lines) for lines in blocks), default=0)
    with_pictures = any(sample.picture is not None for sample in samples)
    cell_height = text_height + MARGIN + (PICTURE_HEIGHT + 10 if with_pictures else 0)
    n_rows = math.ceil(len(samples) / columns)
    sheet = Image.new("RGB", (columns * (CELL_WIDTH + MARGIN) + MARGIN, n_rows * cell_height + 52), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 16), title, fill=INK, font=_font("DejaVuSans-Bold.ttf", 17))
    for i, (sample, lines) in enumerate(zip(samples, blocks, strict=True)):
        x, y = MARGIN + (i % columns) * (CELL_WIDTH + MARGIN), 52 + (i // columns) * cell_height
        if sample.picture is not None:
            picture = ImageOps.contain(
                sample.picture.convert("RGB"), (CELL_WIDTH, PICTURE_HEIGHT), Image.Resampling.BICUBIC
            )
            draw.rectangle((x, y, x + CELL_WIDTH - 1, y + PICTURE_HEIGHT - 1), fill=FRAME)
            sheet.paste(picture, (x + (CELL_WIDTH - picture.width) // 2, y + (PICTURE_HEIGHT - picture.height) // 2))
        if with_pictures:
            y += PICTURE_HEIGHT + 8
        for text, is_generated in lines:
            draw.text((x, y), text, fill=INK if is_generated else QUIET, font=bold if is_generated else regular)
            y += LINE
    return sheet


def _lines(sample: Sample) -> list[tuple[str, bool]]:
    lines = [(line, True) for line in _wrapped(sample.generated, CHARACTERS - 4) or ["(nothing)"]]
    for true in sample.true[:2]:
        lines += [(line, False) for line in _wrapped(true, CHARACTERS)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    is_wide = any(unicodedata.east_asian_width(char) in "WF" for char in text)
    return textwrap.wrap(text, width // 2 if is_wide else width)


def missing_letters(text: str, font: str | Path = "DejaVuSans.ttf") -> str:
    """Return the letters of a text that a font does not have."""
    from matplotlib.ft2font import FT2Font

    known = FT2Font(str(_path(font))).get_charmap()
    return "".join(sorted({char for char in text if char.isalnum() and ord(char) not in known}))


def font_with(text: str) -> Path | None:
    """Return the font of this machine that has most of a text's letters, None where the usual one is as good."""
    missing = missing_letters(text)
    if not missing:
        return None
    from matplotlib.font_manager import findSystemFonts

    best, fewest = None, len(missing)
    for name in sorted(findSystemFonts()):
        with suppress(Exception):  # of the fonts of a machine some cannot be read
            n = len(missing_letters(missing, Path(name)))
            if n < fewest:
                best, fewest = Path(name), n
    return best


def letters_without_font(text: str) -> str:
    """Return "" or a sentence that names letters that no font of this machine has, and what to install."""
    missing = missing_letters(text)
    font = font_with(missing) if missing else None
    missing = missing_letters(missing, font) if font is not None else missing
    if not missing:
        return ""
    some = missing[:3]
    return (
        f"no font on this machine has letters such as {some!r}: pictures of captions show boxes in their place; install one that has them "
        "(Debian: fonts-noto-cjk for Chinese, Japanese and Korean, fonts-noto-core for most others)"
    )


def _path(font: str | Path) -> Path:
    import matplotlib

    return font if isinstance(font, Path) else Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font


def _font(name: str | Path, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font of a path, or one of those that matplotlib ships, so that grids look alike on every machine."""
    return ImageFont.truetype(str(_path(name)), size)


def thumbnail(picture: Picture, side: int = 320) -> Image.Image:
    """Return a picture in RGB, upright and at most `side` pixels on its longer side, by the rules of training."""
    data = picture.read_bytes() if isinstance(picture, Path) else picture.read(picture.archive, picture.place)
    return small_picture(data, str(picture), side)


def small_picture(data: bytes, name: str, side: int) -> Image.Image:
    """Return the thumbnail of an image file's bytes. Raises DataError if they are broken."""
    with opened(data, name) as image:
        image.draft(None, (2 * side, 2 * side))
        small = convert(upright(image), "RGB", name)
        small.thumbnail((side, side))
        return small
