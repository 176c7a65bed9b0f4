"""The most frequent caption, and CIDEr-D of it by image: that of `score`."""

from __future__ import annotations

import pytest

from corpora import scored
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.most_frequent import cider_by_image, most_frequent
from img2seq.report.constant import against_constant

REFERENCES = {"2": ["a dog runs", "a brown dog"], "1": ["a cat sleeps on a bed"], "3": ["two birds", "a bird ."]}


def test_the_most_frequent_caption_is_found_case_aside_and_the_first_of_equals() -> None:
    assert most_frequent(["a cat", "A dog", "a bird", "a dog"]) == "A dog"
    assert most_frequent(["b", "a"]) == "b"
    assert most_frequent([]) == ""


def test_cider_by_image_is_that_of_the_scores() -> None:
    captions = {"3": "a bird", "1": "a dog on a bed", "2": "a dog runs"}
    expected = scored(captions, REFERENCES).per_image
    assert cider_by_image(captions, REFERENCES) == pytest.approx({i: expected[i]["cider_d"] for i in captions})


def test_a_gain_over_one_caption_is_the_difference_of_their_scores() -> None:
    captions = {"1": "a cat sleeps on a bed", "2": "a dog runs", "3": "two birds"}
    scores = cider_by_image(captions, REFERENCES)
    found = against_constant(scores, REFERENCES, "a dog runs")
    assert found is not None
    constant = scored(dict.fromkeys(REFERENCES, "a dog runs"), REFERENCES).corpus["cider_d"]
    assert found.cider_d == pytest.approx(constant)
    assert found.gain == pytest.approx(scored(captions, REFERENCES).corpus["cider_d"] - constant)
    assert found.ci95[0] <= found.gain <= found.ci95[1]
    assert found.images == 3
    frequency = DocumentFrequency(100, {}, "a file")
    other = against_constant(scores, REFERENCES, "a dog runs", frequency)
    assert other is not None
    assert other.cider_d != found.cider_d


def test_of_one_image_or_without_a_caption_nothing_is_said() -> None:
    assert against_constant({"1": 0.0}, {"1": ["a cat"]}, "a cat") is None
    assert against_constant({"1": 0.0, "2": 0.0}, REFERENCES, "") is None
