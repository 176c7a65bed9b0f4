"""Captions, records and splits: what a table may hold, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import write_tiny_data
from img2seq.data.records import Problems, find_images, image_id_of, match_pictures
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.data.split import manual_split, random_split
from img2seq.errors import DataError


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "captions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_ids_are_text_and_may_come_again(tmp_path: Path) -> None:
    found = read_captions(
        table(tmp_path, 'ID,Sequence\n000000000009,A dog .\n9,"A cat, asleep ."\n000000000009,Two dogs .\n')
    )
    assert found.captions == {"000000000009": ["A dog .", "Two dogs ."], "9": ["A cat, asleep ."]}


def test_rows_that_cannot_be_used_are_named_by_line(tmp_path: Path) -> None:
    found = read_captions(table(tmp_path, "ID,Sequence\na,fine\nb\n,text\nc,  \n"))
    assert found.captions == {"a": ["fine"]}
    assert [problem.split(":")[0] for problem in found.problems] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,Title\na,b\n", "expected the columns ID and Sequence, found 'ID', 'Title'"),
        ("", "found nothing"),
        ("ID,Sequence\n", "found none"),
        ('ID,Sequence\na,"b\n', "not a valid CSV row"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_captions(table(tmp_path, text))


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_bytes("ID,Sequence\na,déjà vu, très près\nb,".encode() + b"caf\xe9\n")
    with pytest.raises(DataError, match=r"captions\.csv:3: expected UTF-8 text, found byte 0xe9"):
        read_captions(path)


def test_an_id_is_a_file_name_with_or_without_its_extension() -> None:
    assert [image_id_of(name) for name in ("a.jpg", "a.JPEG", "a", "a.b", "1.5", ".jpg")] == [
        "a",
        "a",
        "a",
        "a.b",
        "1.5",
        ".jpg",
    ]


def test_images_are_found_in_subfolders_and_clashes_are_named(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/2.jpg", "y/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found = find_images(tmp_path)
    assert set(match_pictures((), {}, found.pictures).unused) == {"x/1", "y/1", "2"}
    assert found.clashes == []
    Image.new("RGB", (4, 4)).save(tmp_path / "y/1.gif")
    assert find_images(tmp_path).clashes == [f"y/1: {tmp_path}/y/1.gif and {tmp_path}/y/1.jpg"]


@pytest.mark.parametrize(
    ("captioned", "expected"),
    [
        (["x/1", "y/1.jpg", "2"], ["x/1.png", "y/1.jpg", "y/2.jpg"]),
        (["x/1.png", "y/1", "y/2.jpg"], ["x/1.png", "y/1.jpg", "y/2.jpg"]),  # all with folders, as COCO's are
        (["x/1", "3"], ["x/1.png", "3.png"]),
        (["3", "z/3"], ["3.png", "z/3.gif"]),
    ],
)
def test_pictures_of_one_name_are_told_apart_by_their_folders(
    captioned: list[str], expected: list[str], tmp_path: Path
) -> None:
    for name in ("x/1.png", "y/2.jpg", "y/1.jpg", "3.png", "z/3.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    problems = Problems()
    ids = [image_id_of(name) for name in captioned]
    files, _ = match_images(
        CaptionsFound({i: ["a dog"] for i in ids}, []), {i: ["a dog"] for i in ids}, tmp_path, "photo", problems
    )
    assert files == {i: tmp_path / name for i, name in zip(ids, expected, strict=True)}
    assert not problems


def test_a_name_that_several_pictures_have_is_said_with_theirs(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/1.png", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    problems = Problems()
    match_images(
        CaptionsFound({"1": ["a dog"], "2": ["a cat"]}, []),
        {"1": ["a dog"], "2": ["a cat"]},
        tmp_path,
        "photo",
        problems,
    )
    assert "  1 (several files have this name: x/1, y/1)" in problems.text()


def test_pictures_that_are_not_read_are_counted(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, n=4)
    for name in ("a.jxl", "b.JXL", "folder/c.psd", "notes.txt", ".hidden.jxl"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    _, notes = match_images(CaptionsFound({"000": ["x"]}, []), {"000": ["x"]}, tmp_path / "images", "photo", Problems())
    assert [note.split()[0] for note in notes] == ["3", f"{tmp_path}/images:"]
    assert notes[1].endswith(": 2 .jxl, 1 .psd")
    for path in (tmp_path / "images").glob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"expected images .*, found 2 \.jxl, 1 \.psd"):
        find_images(tmp_path / "images")


def test_a_missing_folder_names_the_nearest_one(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    with pytest.raises(DataError, match="Did you mean 'images'"):
        find_images(tmp_path / "image")


def test_captions_without_an_image_are_counted(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, n=4)
    problems = Problems()
    files, notes = match_images(
        CaptionsFound({"000": ["x"], "7": ["y"], "8": ["z"]}, []),
        {"000": ["x"], "7": ["y"], "8": ["z"]},
        tmp_path / "images",
        "photo",
        problems,
    )
    assert (set(files), notes[0].split()[0]) == ({"000"}, "3")
    assert "2 ID(s) with captions have no image" in problems.text()
    with pytest.raises(DataError, match="none of the 1 captioned IDs"):
        match_images(CaptionsFound({"7": ["y"]}, []), {"7": ["y"]}, tmp_path / "images", "photo", Problems())


@given(st.sets(st.text("abc0123", min_size=1), min_size=4, max_size=30), st.integers(0, 5))
def test_a_split_parts_the_images_and_does_not_depend_on_their_order(ids: set[str], seed: int) -> None:
    train, valid = random_split(ids, 0.25, seed)
    assert set(train) | set(valid) == ids
    assert not set(train) & set(valid)
    assert random_split(sorted(ids, reverse=True), 0.25, seed) == (train, valid)


def test_one_more_image_moves_no_other_across_the_split_but_the_last() -> None:
    ids = [f"{i}" for i in range(100)]
    before, after = set(random_split(ids, 10, 0)[1]), set(random_split([*ids, "new"], 10, 0)[1])
    assert len(before - after) <= 1


def test_a_manual_split_names_unknown_ids() -> None:
    with pytest.raises(DataError, match="1 of 2 IDs have no image"):
        manual_split(["a", "b", "c"], ["a", "d"])
    assert manual_split(["a", "b", "c"], ["b"]) == (["a", "c"], ["b"])


class Hashed(str):
    """Text that counts how often it is looked up."""

    __slots__ = ()
    n = 0

    def __hash__(self) -> int:
        Hashed.n += 1
        return str.__hash__(self)


@pytest.mark.parametrize("folder", ["", "train2017/"])
def test_pictures_are_matched_in_linear_time(folder: str) -> None:
    counts = []
    for n in (200, 400):
        ids = [Hashed(f"{i:06}") for i in range(n)]
        found = {f"{folder}{i:06}": Path(f"/x/{i}.jpg") for i in range(n)}
        Hashed.n = 0
        assert len(match_pictures(ids, {}, found).pictures) == n
        counts.append(Hashed.n)
    assert counts[1] < 2.2 * counts[0]
