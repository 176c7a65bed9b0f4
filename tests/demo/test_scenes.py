"""The demo's scenes: pure, varied, described truly, and split without a leak."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from img2seq.demo.dataset import write_dataset
from img2seq.demo.drawing import draw
from img2seq.demo.scenes import COLOURS, SHAPES, Scene, scene
from img2seq.demo.wording import captions, is_true, true_captions
from img2seq.errors import DataError

MANY = [scene(7, index) for index in range(500)]
FEW = MANY[:60]


def test_a_scene_is_a_pure_function_of_seed_and_index() -> None:
    assert [scene(7, index) for index in range(500)] == MANY
    assert scene(8, 0) != scene(7, 0)
    for one in FEW[:10]:
        assert draw(one).tobytes() == draw(one).tobytes()
        assert captions(one) == captions(one)


def test_equal_content_gives_different_pixels() -> None:
    one = MANY[0]
    other = replace(one, jitter=one.jitter + 1)
    assert other.content == one.content
    assert ImageChops.difference(draw(one), draw(other)).getbbox() is not None


@pytest.mark.parametrize("size", [32, 64, 128, 200])
def test_pictures_have_the_size_asked_for(size: int) -> None:
    assert {(draw(one, size).size, draw(one, size).mode) for one in FEW[:12]} == {((size, size), "RGB")}


def test_every_group_shows_its_colour_inside_the_picture() -> None:
    """A thing drawn outside, or hidden by another, would make its caption false."""
    for one in FEW:
        hues = {g.colour: draw(replace(one, groups=_recoloured(one, g.colour))) for g in one.groups}
        for image in hues.values():
            assert ImageChops.difference(image, draw(one)).getbbox() is not None


def _recoloured(one: Scene, colour: str) -> tuple[Group, ...]:
    unused = next(c for c in COLOURS if c not in {g.colour for g in one.groups})
    return tuple(replace(g, colour=unused) if g.colour == colour else g for g in one.groups)


def test_five_distinct_captions_are_all_true() -> None:
    for one in MANY:
        said = captions(one)
        assert len(set(said)) == 5
        assert true_captions(one).issuperset(said)


def test_the_first_caption_leaves_nothing_out() -> None:
    for one in MANY:
        first = captions(one)[0]
        for group in one.groups:
            assert group.colour in first
            assert not group.size or re.search("small|little|large|big", first)
            assert not group.texture or re.search("stripe|spot|check", first)


def test_a_false_caption_is_not_among_the_true_ones() -> None:
    changes = {"colour": COLOURS, "shape": SHAPES, "count": (1, 2, 3, 4)}
    for one in FEW:
        true = true_captions(one)
        for field, values in changes.items():
            was = getattr(one.groups[0], field)
            for value in values:
                if value == was or (field != "count" and value in {getattr(g, field) for g in one.groups}):
                    continue
                size = one.groups[0].size if field != "count" else ("small" if value == 1 else "")
                false = replace(one.groups[0], **{field: value, "size": size})
                assert true.isdisjoint(true_captions(replace(one, groups=(false, *one.groups[1:])))), field


def test_a_false_relation_size_or_background_is_not_true() -> None:
    pair = next(one for one in MANY if one.relation == "left")
    swapped = replace(pair, groups=pair.groups[::-1])
    assert not any("left" in caption for caption in true_captions(pair) & true_captions(swapped))
    single = next(one for one in MANY if not one.relation and one.groups[0].size == "small")
    grown = replace(single, groups=(replace(single.groups[0], size="large"),))
    assert not any("small" in caption for caption in true_captions(single) & true_captions(grown))
    moved = replace(single, background="sand" if single.background != "sand" else "snow")
    assert not is_true(moved, next(c for c in true_captions(single) if c.startswith("There") and " in " in c or " on " in c))


def test_judging_forgives_case_and_punctuation_only() -> None:
    one = MANY[0]
    said = captions(one)[0]
    assert is_true(one, said)
    assert is_true(one, said.lower().removesuffix(" ."))
    assert not is_true(one, said.removesuffix(" .") + " indeed .")
    assert not is_true(one, "")


def test_the_vocabulary_is_modest_and_used() -> None:
    words = Counter(word for one in MANY for caption in captions(one) for word in caption.lower().split())
    assert 60 <= len(words) <= 150
    assert all(words[colour] for colour in COLOURS)
    assert all(words[shape] for shape in SHAPES)


def test_grammar() -> None:
    plural = r"(?:two|three|four)\b"
    for one in MANY:
        for caption in captions(one):
            assert caption.endswith(" .")
            assert caption[0].isupper()
            assert "  " not in caption
            assert not re.search(r"\ba [aeiou]", caption.lower()), caption
            assert not re.search(r"\ban [^aeiou]", caption.lower()), caption
            assert not re.search(rf"^{plural}.* (is|floats|sits|rests|hangs) ", caption.lower()), caption
            assert not re.search(r"^an? (?!pair|group).* (are|float|sit|rest|hang) ", caption.lower()), caption
            assert not re.search(rf"there (is {plural}|are an?\b)", caption.lower()), caption
            for number, noun in re.findall(r"\b(an?|two|three|four) ((?:[a-z]+ )*?(?:%s))" % "|".join(_nouns()), caption.lower()):
                assert noun.endswith(("s", "fish")) == (number in ("two", "three", "four")) or "fish" in noun


def test_write_dataset(tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=40, n_valid=10, seed=3, size=64)
    with (tmp_path / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    valid_ids = (tmp_path / "valid_ids.txt").read_text(encoding="utf-8").split()
    stems = sorted(path.stem for path in (tmp_path / "images").iterdir())
    assert list(rows[0]) == ["ID", "Sequence"]
    assert Counter(row["ID"] for row in rows) == dict.fromkeys(stems, 5)
    assert len(stems) == 50
    assert len(set(valid_ids)) == 10
    assert set(valid_ids) < set(stems)
    with Image.open(tmp_path / "images" / f"{stems[0]}.jpg") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
    assert json.loads((tmp_path / "complete.json").read_text(encoding="utf-8"))["n_train"] == 40
