"""The demo's scenes: pure, varied, truly described in sound English, and split without a leak."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from img2seq.demo.dataset import chosen_scenes, write_dataset
from img2seq.demo.drawing import draw
from img2seq.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Group, Scene, scene
from img2seq.demo.wording import captions, is_true, true_captions
from img2seq.errors import DataError

MANY = [scene(7, index) for index in range(500)]
FEW = MANY[:60]


def with_first(one: Scene, **changes: object) -> Scene:
    """Return the scene with its first group changed."""
    return replace(one, groups=(replace(one.groups[0], **changes), *one.groups[1:]))  # type: ignore[arg-type]


def test_everything_is_a_pure_function_of_seed_and_index() -> None:
    assert [scene(7, index) for index in range(500)] == MANY
    assert scene(8, 0) != scene(7, 0)
    for one in FEW[:10]:
        assert draw(one).tobytes() == draw(one).tobytes()
        assert captions(one) == captions(one)


def test_all_shapes_colours_backgrounds_and_relations_occur() -> None:
    groups = [group for one in MANY for group in one.groups]
    assert {group.shape for group in groups} == set(SHAPES)
    assert {group.colour for group in groups} == set(COLOURS)
    assert {one.background for one in MANY} == set(BACKGROUNDS)
    assert {one.relation for one in MANY} == {"", "left", "above", "front", "inside"}


def test_equal_content_gives_different_pixels_on_the_same_side() -> None:
    one = MANY[0]
    for jitter in range(20):
        other = replace(one, jitter=jitter)
        assert other.content == one.content
        assert other.is_validation == one.is_validation
        assert ImageChops.difference(draw(one), draw(other)).getbbox() is not None


@pytest.mark.parametrize("size", [32, 64, 128, 200])
def test_a_picture_has_the_size_asked_for(size: int) -> None:
    for one in FEW[:12]:
        assert (draw(one, size).size, draw(one, size).mode) == ((size, size), "RGB")


def changed_box(one: Scene, other: Scene) -> tuple[int, int, int, int]:
    box = ImageChops.difference(draw(one), draw(other)).getbbox()
    assert box is not None, f"no pixel shows {one.groups}"
    return box


def test_pixels_show_colour_and_relation() -> None:
    """What a new colour changes in the picture is where the group is: it must be where the captions say."""
    for one in [pair for pair in MANY if len(pair.groups) == 2][:60]:
        first, second = one.groups
        colour = next(name for name in COLOURS if name not in {first.colour, second.colour})
        a = changed_box(one, with_first(one, colour=colour))
        b = changed_box(one, replace(one, groups=(first, replace(second, colour=colour))))
        true = {
            "left": a[2] <= b[0] + 2,  # the shadow may reach over
            "above": a[3] <= b[1] + 2,
            "inside": b[0] < a[0] < a[2] < b[2] and b[1] < a[1] < a[3] < b[3],
            "front": a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3],
        }
        assert true[one.relation], f"{a} is not {one.relation} of {b}"


def test_five_distinct_captions_are_all_true() -> None:
    for one in MANY:
        said = captions(one)
        assert len(set(said)) == 5
        assert true_captions(one).issuperset(said)
        assert all(is_true(one, caption) for caption in said[:1])


def test_the_first_caption_leaves_nothing_out() -> None:
    words = {"small": "small|little", "large": "large|big", "striped": "stripe", "spotted": "spot", "": ""}
    for one in MANY:
        first = captions(one)[0]
        for group in one.groups:
            for detail in (group.colour, words[group.size], words[group.texture], group.shape):
                assert re.search(detail, first), f"{detail!r} is not in {first!r}"


def test_a_caption_of_another_colour_shape_or_count_is_not_true() -> None:
    for one in FEW:
        true = true_captions(one)
        first = one.groups[0]
        used = {group.colour for group in one.groups} | {group.shape for group in one.groups}
        for colour in set(COLOURS) - used:
            assert true.isdisjoint(captions(with_first(one, colour=colour)))
        for shape in set(SHAPES) - used:
            assert true.isdisjoint(captions(with_first(one, shape=shape)))
        for count in {2, 3, 4} - {first.count}:
            assert true.isdisjoint(captions(with_first(one, count=count, size="")))


def test_a_caption_of_another_size_texture_place_or_side_is_not_true() -> None:
    ball = Group("ball", "red", 1, "large", "striped")
    one = Scene((ball,), "", "sand", 1)
    assert is_true(one, "A big red striped ball rests on the sand .")
    assert is_true(one, "There is a red ball with stripes at the beach .")
    assert not is_true(one, "A small red striped ball rests on the sand .")
    assert not is_true(one, "A big red spotted ball rests on the sand .")
    assert not is_true(one, "A big red striped ball sits in the snow .")
    pair = Scene((ball, Group("fish", "blue", 2, "", "")), "left", "water", 1)
    assert is_true(pair, "A red ball is to the left of two blue fish on the water .")
    assert is_true(pair, "Two blue fish to the right of a red ball .")
    assert is_true(pair, "A pair of blue fish next to a big red ball on the sea .")
    assert not is_true(pair, "Two blue fish to the left of a red ball .")
    assert not is_true(pair, "A blue ball is to the left of two red fish on the water .")
    assert not is_true(pair, "A red ball on the water .")


def test_judging_forgives_case_and_punctuation_only() -> None:
    one = MANY[0]
    said = captions(one)[0]
    assert is_true(one, said.lower().removesuffix(" ."))
    assert not is_true(one, said.removesuffix(" .") + " indeed .")
    assert not is_true(one, "")


def test_the_vocabulary_is_modest() -> None:
    words = {word for one in MANY for caption in captions(one) for word in caption.lower().split()}
    assert 60 <= len(words) <= 150


def test_grammar() -> None:
    nouns = rf"(?:{'|'.join(SHAPES)})"
    for one in MANY:
        for caption in captions(one):
            text = caption.lower()
            assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+| ,)* \.", caption), caption
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), caption
            assert not re.search(rf"\ban? (?!pair|group|picture)(\w+ ){{1,3}}(?!fish){nouns}s\b", text), caption
            assert not re.search(rf"\b(two|three|four) (\w+ ){{1,2}}(?!fish){nouns}\b", text), caption
            assert not re.search(r"there (is (two|three|four)|are an?)\b", text), caption
            if re.match(r"(two|three|four)\b", text):
                assert not re.search(r" (is|floats|sits|rests|hangs) ", text), caption
            if re.match(r"an? (?!pair|group|picture)", text):
                assert not re.search(r" (are|float|sit|rest|hang) ", text), caption


def test_write_dataset_writes_what_training_reads(tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=40, n_valid=10, seed=3, size=64)
    with (tmp_path / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    valid_ids = (tmp_path / "valid_ids.txt").read_text(encoding="utf-8").splitlines()
    stems = sorted(path.stem for path in (tmp_path / "images").iterdir())
    assert list(rows[0]) == ["ID", "Sequence"]
    assert Counter(row["ID"] for row in rows) == dict.fromkeys(stems, 5)
    assert stems == [f"scene_{number:05d}" for number in range(50)]
    assert len(valid_ids) == 10
    scenes = list(chosen_scenes(3, 40, 10))
    assert valid_ids == [stem for stem, one in zip(stems, scenes, strict=True) if one.is_validation]
    assert [row["Sequence"] for row in rows] == [caption for one in scenes for caption in captions(one)]
    with Image.open(tmp_path / "images" / "scene_00000.jpg") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")


def test_an_equal_call_returns_at_once_and_any_other_writes_anew(tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=8, n_valid=3, seed=3, size=32)
    first = tmp_path / "images" / "scene_00000.jpg"
    before = first.read_bytes()
    first.write_bytes(b"kept")
    write_dataset(tmp_path, n_train=8, n_valid=3, seed=3, size=32)
    assert first.read_bytes() == b"kept"
    (tmp_path / "complete.json").unlink()  # as a call that was killed leaves it
    write_dataset(tmp_path, n_train=8, n_valid=3, seed=3, size=32)
    assert first.read_bytes() == before
    write_dataset(tmp_path, n_train=4, n_valid=2, seed=3, size=32)
    assert len(list((tmp_path / "images").iterdir())) == 6
    assert json.loads((tmp_path / "complete.json").read_text(encoding="utf-8"))["n_train"] == 4


def test_a_call_that_was_cut_short_leaves_nothing_that_seems_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, n_train=8, n_valid=3, seed=3, size=32)
    with monkeypatch.context() as broken:
        broken.setattr("img2seq.demo.dataset.draw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_dataset(tmp_path, n_train=8, n_valid=3, seed=4, size=32)
    write_dataset(tmp_path, n_train=8, n_valid=3, seed=3, size=32)
    assert len(list((tmp_path / "images").iterdir())) == 11


@pytest.mark.parametrize("seed", [0, 1])
def test_no_content_is_on_both_sides(seed: int) -> None:
    scenes = list(chosen_scenes(seed, 2500, 400))
    sides = {side: {one.content for one in scenes if one.is_validation is side} for side in (False, True)}
    assert {side: len(contents) for side, contents in sides.items()} == {False: 2500, True: 400}
    assert sides[False].isdisjoint(sides[True])
    # Equal content means equal true sentences, so the check above speaks of what captions can say.
    truths = {true_captions(one) for one in scenes[:200]}
    assert len(truths) == 200


def test_a_data_set_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="n_valid=0"):
        write_dataset(tmp_path, n_train=10, n_valid=0, seed=0)
