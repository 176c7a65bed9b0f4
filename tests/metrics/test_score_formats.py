"""Results and references are read from every format, and an error names the file and the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from img2seq.errors import ScoreError
from img2seq.metrics import read_references, read_results
from img2seq.metrics.formats import read_pair

COCO = {
    "images": [{"id": 5, "file_name": "COCO_000005.jpg"}, {"id": 6, "file_name": "COCO_000006.jpg"}],
    "annotations": [
        {"image_id": 5, "caption": "a dog", "id": 1},
        {"image_id": 6, "caption": "a cat", "id": 2},
        {"image_id": 5, "caption": "a brown dog", "id": 3},
    ],
}


def written(folder: Path, content: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        [{"image_id": 5, "caption": "a dog"}, {"image_id": 6, "caption": ""}],
        [{"image_id": "5", "caption": "a dog", "score": 0.5}, {"image_id": "6", "caption": ""}],
        {"5": "a dog", "6": ""},
        "\ufeff" + '{"5": "a dog", "6": ""}',
    ],
)
def test_results_are_read(tmp_path: Path, content: Any) -> None:
    assert read_results(written(tmp_path, content)) == {"5": "a dog", "6": ""}


def test_references_are_read(tmp_path: Path) -> None:
    expected = {"5": ["a dog", "a brown dog"], "6": ["a cat"]}
    assert read_references(written(tmp_path, COCO)) == expected
    assert read_references(written(tmp_path, expected)) == expected
    table = 'ID,Sequence\n5,a dog\n6,a cat\n5,"a brown dog"\n'
    assert read_references(written(tmp_path, table, "references.csv")) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{]", ["line 1, column 3"]),
        ('{"5": "a", "5": "b"}', ["'5'", "twice"]),
        ([{"image_id": 5, "caption": "a"}, {"image_id": 5, "caption": "b"}], ["image 5", "[0]", "[1]"]),
        ([{"image_id": 5, "caption": "a"}, {"image_id": "5", "caption": "b"}], ["5 at [0]", "'5' at [1]"]),
        ([{"image_id": 5}], ["[0]", "caption"]),
        ([{"image_id": 5.0, "caption": "a"}], ["[0]", "5.0"]),
        ([{"image_id": 5, "caption": None}], ["[0]", "None"]),
        ({"5": ["a"]}, ["image 5", "['a']"]),
        (COCO, ["COCO annotation file"]),
        ("3", ["expected results"]),
        ([], ["no captions"]),
    ],
)
def test_wrong_results_are_refused_with_their_place(tmp_path: Path, content: Any, said: list[str]) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ScoreError) as error:
        read_results(path)
    assert all(part in str(error.value) for part in [str(path), *said])


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("ID,Title\n1,a\n", "r.csv", ["r.csv:1:", "ID and Sequence", "'ID', 'Title'"]),
        ("ID,Sequence\n1,a\n,b\n", "r.csv", ["line 3"]),
        ("ID,Sequence\n1,a\n2,a dog, running\n", "r.csv", ["line 3"]),
        ("ID,Sequence\n1\n", "r.csv", ["line 2"]),
        ("ID,Sequence\n", "r.csv", ["found none"]),
        ({"1": "a dog"}, "r.json", ["image 1", "'a dog'"]),
        ({"1": []}, "r.json", ["image 1"]),
        ({"1": ["a", 3]}, "r.json", ["image 1", "3"]),
        ({"annotations": [{"image_id": 1, "caption": "a"}, {"image_id": "1", "caption": "b"}]}, "r.json", ["'1'"]),
        ({"annotations": [{"caption": "a"}]}, "r.json", ["annotations[0]"]),
        ([1], "r.json", ["expected captions in a format that is known", "coco"]),
    ],
)
def test_wrong_references_are_refused_with_their_place(
    tmp_path: Path, content: Any, name: str, said: list[str]
) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(ScoreError) as error:
        read_references(path)
    assert all(part in str(error.value) for part in [str(path), *said])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (read_results, read_references):
        with pytest.raises(ScoreError, match=r"none\.json"):
            read(tmp_path / "none.json")
    with pytest.raises(ScoreError, match=r"none\.csv"):
        read_references(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("image_id", "said"),
    [
        ("COCO_000006.jpg", ["'COCO_000006.jpg' is the name of the file of image 6"]),
        ("COCO_000006", ["'COCO_000006' is the name of the file of image 6"]),
        ("06", ["'06' is the number at the end of the id of image 6"]),
        ("cat", ["1 image has a caption and no references:\n  cat"]),
    ],
)
def test_ids_that_do_not_match_are_explained_and_not_guessed(tmp_path: Path, image_id: str, said: list[str]) -> None:
    results = written(tmp_path, {"5": "a dog", image_id: "a cat"}, "results.json")
    references = written(tmp_path, COCO, "references.json")
    with pytest.raises(ScoreError) as error:
        read_pair(results, references)
    assert all(part in str(error.value) for part in [str(results), str(references), *said])


def test_ids_that_differ_for_every_image_in_one_way_are_matched(tmp_path: Path) -> None:
    """159 file names of COCO against its annotations, with and without the list of images, and numbers against a table of names."""
    numbers = [139 + 7 * n for n in range(159)]
    padded = [f"{n:012}" for n in numbers]
    annotations = [{"image_id": n, "caption": "a dog"} for n in numbers]
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012}.jpg"} for n in numbers]
    table = "ID,Sequence\n" + "".join(f"{name},a dog\n" for name in padded)
    full = [f"COCO_val2014_{name}.jpg" for name in padded]
    for names, content, facts in (
        (padded, {"annotations": annotations}, ["'000000000139'", "'139'", "number"]),
        (full, {"annotations": annotations}, ["'COCO_val2014_000000000139.jpg'", "'139'", "number"]),
        (full, {"annotations": annotations, "images": images}, ["name of the file", "'139'"]),
        ([str(n) for n in numbers], table, ["'139'", "'000000000139'", "number"]),
    ):
        results = written(tmp_path, [{"image_id": name, "caption": name} for name in names], "results.json")
        references = written(tmp_path, content, "references.csv" if content is table else "references.json")
        captions, truths, notes = read_pair(results, references)
        assert list(captions) == list(truths) == (padded if content is table else [str(n) for n in numbers])
        assert list(captions.values()) == names
        assert [fact for fact in facts if fact not in notes[0]] == []
    results = written(tmp_path, [{"image_id": n, "caption": "a"} for n in ["unlike any", *padded[1:]]], "results.json")
    with pytest.raises(ScoreError, match="'000000000146' is the number at the end of the id of image 146"):
        read_pair(results, written(tmp_path, {"annotations": annotations}, "references.json"))


def test_a_number_that_two_names_end_with_matches_neither(tmp_path: Path) -> None:
    references = written(tmp_path, {"a_1": ["a dog"], "b_1": ["a cat"]}, "references.json")
    with pytest.raises(ScoreError):
        read_pair(written(tmp_path, {"1": "a dog", "01": "a cat"}, "results.json"), references)


def test_a_matching_pair_is_read(tmp_path: Path) -> None:
    results = written(tmp_path, {"6": "a cat", "5": "a dog"}, "results.json")
    captions, truths, _ = read_pair(results, written(tmp_path, COCO, "references.json"))
    assert captions.keys() == truths.keys()
