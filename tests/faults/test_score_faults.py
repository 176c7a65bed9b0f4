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
from img2seq.data.scripts import cut_into_characters
from img2seq.errors import ScoreError
from img2seq.metrics import java, score
from img2seq.metrics.cider import DocumentFrequency


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
        ({"1": "a", "7": "b"}, {"1": ["a"]}, ["1 image has a caption and no references", "  7"]),
        ({"1": "a"}, {"1": []}, ["1 image has an empty list of references", "  1"]),
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


# --- what scores cannot tell

CHINESE = {"1": "一只狗在草地上跑", "2": "一只猫在睡觉"}
CHINESE_REFERENCES = {"1": ["一只狗在草地上奔跑", "一只棕色的狗在跑"], "2": ["一只猫睡在沙发上", "沙发上有一只猫"]}
WORDS = {"1": "a dog runs over the grass", "2": "a cat sleeps on the mat"}


def spaced(texts: str) -> str:
    return " ".join(texts)


@pytest.mark.parametrize(
    ("results", "references", "facts"),
    [
        (CHINESE, CHINESE_REFERENCES, ["no spaces"]),
        ({"1": "หมาวิ่งเล่นบนสนามหญ้า", "2": "แมวนอนหลับบนโซฟา"}, {"1": ["หมากำลังวิ่งเล่น"], "2": ["แมวนอนบนโซฟาสีแดง"]}, ["no spaces"]),
        ({"1": "犬が草の上を走っている", "2": "猫がソファーで寝ている"}, {"1": ["犬が走っている"], "2": ["猫が寝ているところ"]}, ["no spaces"]),
        ({i: spaced(t) for i, t in CHINESE.items()}, {i: list(map(spaced, t)) for i, t in CHINESE_REFERENCES.items()}, []),
        ({"1": "หมา วิ่ง เล่น บน สนาม หญ้า", "2": "แมว นอน หลับ บน โซฟา"}, {"1": ["หมา กำลัง วิ่ง เล่น"], "2": ["แมว นอน บน โซฟา สี แดง"]}, []),
        (WORDS, {"1": ["the flag of 中华人民共和国在这里 over grass"], "2": ["the cat sleeps on a mat"]}, []),
        (WORDS, {"1": ["the dog runs over grass"], "2": ["the cat sleeps on a mat"]}, []),
        ({"1": "a dog runs"}, {"1": ["a dog runs on grass", "the brown dog runs"]}, ["CIDEr-D is 0 by definition: its document frequency is of one image", "BLEU-4", "3 words", "intervals"]),
        (WORDS, {"1": ["a dog and a cat play"], "2": ["a dog and a cat play"]}, ["CIDEr-D is 0 by definition: all images share the words"]),
        ({"1": "dog", "2": "cat"}, {"1": ["dog"], "2": ["cat"]}, ["BLEU-2 and BLEU-3 and BLEU-4", "1 word"]),
        ({"1": "", "2": ""}, {"1": ["a dog"], "2": ["a cat"]}, []),
    ],
)  # fmt: skip
def test_what_a_score_cannot_tell_is_said(
    results: dict[str, str], references: dict[str, list[str]], facts: list[str]
) -> None:
    found = scored(results, references)
    assert [fact for fact in facts if fact not in "\n".join(found.notes)] == []
    assert bool(found.notes) == bool(facts)


def test_texts_without_spaces_score_as_their_characters() -> None:
    whole, cut = (
        scored(
            {i: form(t) for i, t in CHINESE.items()}, {i: [form(t) for t in ts] for i, ts in CHINESE_REFERENCES.items()}
        )
        for form in (str, spaced)
    )
    assert whole.corpus == cut.corpus
    assert whole.per_image == cut.per_image
    assert whole.corpus["bleu_4"] > 0
    assert "words" in score(CHINESE, CHINESE_REFERENCES).not_computed["meteor"]
    assert cut_into_characters("หมาวิ่ง") == ["ห", "ม", "า", "วิ่", "ง"]
    assert cut_into_characters("2只dogs在跑") == ["2", "只", "dogs", "在", "跑"]


def test_a_saved_document_frequency_of_one_image_is_said_too(tmp_path: Path) -> None:
    one = DocumentFrequency.from_references([[["a", "dog", "runs"]]])
    assert "of one image" in "".join(scored(WORDS, {"1": ["a dog"], "2": ["a cat"]}, document_frequency=one).notes)
    several = DocumentFrequency.from_references([[["a", "dog"]], [["a", "cat"]]])
    assert "0 by definition" not in "".join(scored({"1": "a dog"}, {"1": ["a dog"]}, document_frequency=several).notes)


def test_notes_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.json").write_text(json.dumps(CHINESE))
    (tmp_path / "t.json").write_text(json.dumps(CHINESE_REFERENCES))
    arguments = ["--results", str(tmp_path / "r.json"), "--references", str(tmp_path / "t.json")]
    assert cli.run(["evaluate", *arguments, "--output", str(tmp_path / "o")]) == 0
    assert "warning: scores compare characters" in capsys.readouterr().out
    assert "no spaces" in "".join(json.loads((tmp_path / "o/metrics.json").read_text())["notes"])
    assert "Scores compare characters" in (tmp_path / "o/report.html").read_text()


@settings(max_examples=40, deadline=None)
@given(corpora, st.floats(0, 1), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_an_interval_stays_where_its_score_can_be(
    corpus: dict[str, tuple[str, list[str]]], pooled: float, of_each: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(java, "meteor", lambda said, meant: (pooled, of_each[: len(said)]))
        found = score(
            {i: said for i, (said, _) in corpus.items()},
            {i: texts for i, (_, texts) in corpus.items()},
            java_metrics=["meteor"],
            resamples=20,
        )
    assert "meteor" in found.intervals
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= high <= (10 if name == "cider_d" else 1)
