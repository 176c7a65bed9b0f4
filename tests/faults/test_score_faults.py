"""Results and references (rows 22 and 28 of docs/faults.md): scores go by id, odd input has a defined value or an error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import METRICS, corpora, scored
from img2seq.cli import main as cli
from img2seq.errors import ScoreError


@settings(max_examples=40, deadline=None)
@given(corpora, st.randoms(use_true_random=False))
def test_order_never_matters(corpus: dict[str, tuple[str, list[str]]], chance: random.Random) -> None:
    results = {i: said for i, (said, _) in corpus.items()}
    references = {i: texts for i, (_, texts) in corpus.items()}
    expected = scored(results, references, resamples=20)
    in_another_order = []
    for mapping in (results, references):
        items = list(mapping.items())
        chance.shuffle(items)
        in_another_order.append(dict(items))
    assert scored(in_another_order[0], in_another_order[1], resamples=20) == expected  # type: ignore[arg-type]


def test_integer_ids_are_their_strings() -> None:
    by_number: dict[Any, str] = {2: "a dog runs", 10: "a cat"}
    references = {"10": ["a cat sits"], "2": ["a dog runs fast"]}
    assert scored(by_number, references).per_image.keys() == {"2", "10"}


@pytest.mark.parametrize(
    ("results", "references", "said"),
    [
        ({"1": "a", 1: "b"}, {"1": ["a"]}, ["results", "1: once as a number, once as a string"]),
        ({"1": "a"}, {"1": ["a"], 1: ["b"]}, ["references", "1: once as a number"]),
        ({"1": "a"}, {"1": ["a"], "2": ["b"], "3": ["c"]}, ["2 images have references and no caption", "  2\n  3"]),
        ({"1": "a", "7": "b"}, {"1": ["a"]}, ["1 images have a caption and no references", "  7"]),
        ({"1": "a"}, {"1": []}, ["empty list of references", "  1"]),
        ({"1": "a", "7": "b"}, {"1": ["a"], "8": ["b"]}, ["no caption:\n  8", "no references:\n  7"]),
        ({1.5: "a"}, {"1": ["a"]}, ["string or an integer, found 1.5"]),
        ({True: "a"}, {"1": ["a"]}, ["string or an integer, found True"]),
        ({}, {}, ["no captions"]),
        ({"1": None}, {"1": ["a"]}, ["image 1", "None"]),
        ({"1": "a"}, {"1": "a dog"}, ["image 1", "a list of captions"]),
    ],
)
def test_unclear_ids_are_one_error_that_lists_them(results: Any, references: Any, said: list[str]) -> None:
    with pytest.raises(ScoreError) as error:
        scored(results, references)
    assert all(part in str(error.value) for part in said)


def test_empty_captions_score_0() -> None:
    references = {"1": ["a dog runs", "the dog"], "2": ["a cat"], "3": [""]}
    empty = scored({"1": "", "2": "...", "3": ""}, references)
    assert empty.corpus == dict.fromkeys(METRICS, 0.0)
    assert set(empty.intervals.values()) == {(0.0, 0.0)}
    mixed = scored({"1": "", "2": "a cat", "3": "x"}, references)
    assert mixed.per_image["1"] == dict.fromkeys(METRICS, 0.0)
    assert mixed.per_image["2"]["rouge_l"] == 1.0


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([(1, "a dog"), (1, "a cat")], "image 1 has two captions"),
        ([(1, "a dog"), ("1", "a cat")], "is written as 1"),
        ([(7, "a dog"), (1, "a cat")], "7"),
        ([], "holds no captions"),
    ],
)
def test_a_results_file_with_unclear_ids_is_not_scored(
    results: list[tuple[Any, str]], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps([{"image_id": i, "caption": text} for i, text in results]))
    (tmp_path / "t.json").write_text(json.dumps({"1": ["a dog"]}))
    arguments = ["--results", str(tmp_path / "r.json"), "--references", str(tmp_path / "t.json")]
    assert cli.run(["evaluate", *arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error: ") == 1
    assert not (tmp_path / "out").exists()


def test_one_reference_and_one_image_have_defined_scores() -> None:
    found = scored({"1": "a dog runs fast"}, {"1": ["a dog runs fast"]}).corpus
    assert found == pytest.approx(
        {"bleu_1": 1, "bleu_2": 1, "bleu_3": 1, "bleu_4": 1, "rouge_l": 1, "cider_d": 0}, abs=1e-6
    )
    # One image is all the documents there are: every word is in each of them, and CIDEr-D weighs it 0.


@given(st.text(max_size=30), st.text(max_size=30))
@settings(deadline=None, max_examples=60)
def test_any_text_has_finite_scores(said: str, meant: str) -> None:
    found = scored({"1": said, "2": "a dog"}, {"1": [meant], "2": ["a cat"]}, resamples=5).corpus
    assert all(0 <= value <= 10 for value in found.values())
