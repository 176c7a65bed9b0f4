"""Captions that are all alike are counted, and an alarm is raised when most images get the same one."""

from __future__ import annotations

import pytest

from img2seq.errors import ScoreError
from img2seq.metrics.diversity import measure_diversity


def test_counts() -> None:
    found = measure_diversity(
        {"1": "A dog runs .", "2": "a dog runs", "3": "a cat", "4": "22 3/4 dogs"},
        training_captions=["A cat.", "a bird", "A dog runs"],
    )
    assert (found.captions, found.distinct_captions, found.distinct_captions_ratio) == (4, 3, 0.75)
    # a dog runs | a dog runs | a cat | "22 3/4" dogs
    assert (found.distinct_1, found.distinct_1_ratio) == (6, 6 / 10)
    assert (found.distinct_2, found.distinct_2_ratio) == (4, 4 / 6)
    assert found.vocabulary_used == 6
    assert found.mean_length == 2.5
    assert (found.copies, found.copies_ratio) == (3, 0.75)
    assert (found.most_common_caption, found.most_common_share) == ("a dog runs", 0.5)
    assert found.alarm is None


def test_an_alarm_when_most_images_get_the_same_caption() -> None:
    found = measure_diversity({"1": "a dog", "2": "A dog.", "3": "a cat"})
    assert found.alarm is not None
    assert "2 of 3 images" in found.alarm
    assert "'a dog'" in found.alarm
    assert (found.copies, found.copies_ratio) == (None, None)
    long = measure_diversity(dict.fromkeys("123", "a dog " * 20_000)).alarm
    assert long is not None
    assert len(long) < 400


def test_one_image_raises_no_alarm() -> None:
    assert measure_diversity({"1": "a dog"}).alarm is None


def test_order_does_not_choose_the_most_common_caption() -> None:
    for results in ({"1": "b", "2": "a"}, {"2": "a", "1": "b"}):
        assert measure_diversity(results).most_common_caption == "a"


def test_empty_captions() -> None:
    found = measure_diversity({"1": "", "2": "..."})
    assert (found.distinct_captions, found.vocabulary_used, found.mean_length) == (1, 0, 0.0)
    assert (found.distinct_1_ratio, found.distinct_2_ratio) == (0.0, 0.0)
    with pytest.raises(ScoreError, match="no captions"):
        measure_diversity({})


def test_captions_that_break_off_are_counted() -> None:
    found = measure_diversity({"1": "A man in a.", "2": "a dog with", "3": "a dog looks on with a ball", "4": ""})
    assert (found.bad_endings, found.bad_endings_ratio) == (3, 0.75)
    assert found.sentence == "4 of 4 captions are distinct, 9 words are used, 3.5 a caption; 75.0% end badly"
