"""Pictures of captions in scripts that the usual font does not have."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageChops

from img2seq.report.gallery import Sample, draw_grid, font_with, letters_without_font, missing_letters

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def grid(text: str) -> Image.Image:
    return draw_grid([Sample("1", text, [text], None)], title="x")


def test_a_font_of_the_machine_is_used_where_the_usual_one_lacks_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = next(
        chr(n)
        for n in range(0x2100, 0x1D7FF)
        if chr(n).isalnum() and missing_letters(chr(n)) and not missing_letters(chr(n), "STIXGeneral.ttf")
    )
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    boxes = grid(letters)
    assert letters_without_font(letters) != ""
    monkeypatch.setattr(
        "matplotlib.font_manager.findSystemFonts", lambda: [str(FONTS / "STIXGeneral.ttf"), "no such font"]
    )
    assert font_with(letters) == FONTS / "STIXGeneral.ttf"
    assert letters_without_font(letters) == ""
    assert ImageChops.difference(boxes, grid(letters)).getbbox() is not None


def test_letters_that_no_font_has_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [])
    said = letters_without_font("犬が走る a dog")
    assert [fact for fact in ("が", "fonts-noto-cjk") if fact not in said] == []
    assert letters_without_font("Ein Hund läuft. собака كلب") == ""
    assert font_with("a dog") is None


def test_wide_letters_stay_in_their_column() -> None:
    assert grid("犬" * 60).height > grid("a" * 60).height
