"""BLEU, ROUGE-L and CIDEr-D are pycocoevalcap's to 1e-6, for any captions. What may be wrong with them: tests/faults."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from oracle import flickr8k_pairs, needs_java

from conftest import SHARED, img2seq, needs_flickr8k
from corpora import METRICS, corpora, scored
from img2seq.errors import ScoreError
from img2seq.metrics import ptb_tokenize
from img2seq.metrics.cider import DocumentFrequency, cider_d
from img2seq.metrics.ngrams import count_corpus


def reference_scores(
    results: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return pycocoevalcap's scores of our tokens, for the corpus and per image."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said = {image_id: [" ".join(ptb_tokenize(text))] for image_id, text in results.items()}
    meant = {image_id: [" ".join(ptb_tokenize(text)) for text in texts] for image_id, texts in references.items()}
    meant = {image_id: meant[image_id] for image_id in said}
    bleu, bleu_per_image = Bleu(4).compute_score(meant, said, verbose=0)
    rouge, rouge_per_image = Rouge().compute_score(meant, said)
    cider, cider_per_image = Cider().compute_score(meant, said)
    corpus = dict(zip(METRICS, [*bleu, rouge, cider], strict=True))
    rows = zip(*bleu_per_image, rouge_per_image, cider_per_image, strict=True)
    return corpus, {i: dict(zip(METRICS, row, strict=True)) for i, row in zip(said, rows, strict=True)}


def assert_equal_scores(results: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    ours = scored(results, references)
    corpus, per_image = reference_scores(results, references)
    assert ours.corpus == pytest.approx(corpus, abs=1e-6)
    for image_id in results:
        assert ours.per_image[image_id] == pytest.approx(per_image[image_id], abs=1e-6)


@needs_java
@needs_flickr8k
def test_real_captions_score_as_in_the_reference() -> None:
    assert_equal_scores(*flickr8k_pairs(600))


@needs_java
@needs_flickr8k
@pytest.mark.parametrize("by", ["cocoid", "file name"])
def test_the_test_part_of_a_karpathy_split_scores_as_in_the_reference(by: str, tmp_path: Path) -> None:
    """The command scores results by the ids of COCO or by file names, as the reference scores the captions themselves."""
    results, references = flickr8k_pairs(120)
    images = [
        {"filename": f"COCO_val2014_{n:012}.jpg", "filepath": "val2014", "cocoid": n, "imgid": n - 1000,
         "split": "test" if n % 2 else "restval", "sentences": [{"raw": text} for text in texts]}
        for n, texts in enumerate(references.values(), 1000)
    ]  # fmt: skip
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    test = {i: n for n, i in enumerate(results, 1000) if n % 2}
    entries = [
        {"image_id": n if by == "cocoid" else f"COCO_val2014_{n:012}.jpg", "caption": results[i]}
        for i, n in test.items()
    ]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    files: list[str | Path] = ["--results", tmp_path / "results.json", "--references", tmp_path / "dataset_coco.json"]
    assert img2seq("evaluate", *files, "--split", "test", "--output", tmp_path / "scores") == 0
    corpus, _ = reference_scores({i: results[i] for i in test}, {i: references[i] for i in test})
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert {name: metrics[name] for name in METRICS} == pytest.approx(corpus, abs=1e-6)
    assert metrics["images"] == len(test)
    assert any("name of the file" in note for note in metrics["notes"]) == (by != "cocoid")
    assert img2seq("evaluate", *files, "--output", tmp_path / "all") == 2  # results of one side are not those of all


@needs_java
@settings(max_examples=60, deadline=None)
@given(corpora)
def test_any_captions_score_as_in_the_reference(corpus: dict[str, tuple[str, list[str]]]) -> None:
    # The reference fails on references that are all empty, and gives ROUGE-L 1 to an empty caption among them.
    filled = {i: (said, [text + " bird" for text in texts]) for i, (said, texts) in corpus.items()}
    assert_equal_scores({i: said for i, (said, _) in filled.items()}, {i: texts for i, (_, texts) in filled.items()})


@pytest.mark.skipif(not (SHARED / "data/metric_refs").is_dir(), reason="needs ../shared/data/metric_refs")
def test_published_scores_of_the_clipscore_example() -> None:
    folder = SHARED / "data/metric_refs"
    results = json.loads((folder / "clipscore_good_captions.json").read_text())
    references = json.loads((folder / "clipscore_refs.json").read_text())
    corpus = scored(results, references).corpus
    published = dict(zip(METRICS, [0.6667, 0.4899, 0.3469, 0.0000, 0.4280, 0.5637], strict=True))
    assert {name: round(value, 4) for name, value in corpus.items()} == published


def test_document_frequency_survives_its_file(tmp_path: Path) -> None:
    references: list[list[list[str]]] = [[["a", "dog"], ["a", "dog", "runs"]], [["22\u00a03/4", "dog"]], [[]]]
    counted = DocumentFrequency.from_references(references)
    assert counted.images == 3
    assert counted.counts["dog",] == 2
    assert counted.counts["22", "3/4", "dog"] == 1
    counted.save(tmp_path / "df.json")
    loaded = DocumentFrequency.load(tmp_path / "df.json")
    assert (loaded.images, loaded.counts) == (counted.images, counted.counts)
    assert "df.json" in loaded.source


@given(corpora)
def test_a_saved_document_frequency_scores_as_the_references_it_was_counted_on(
    corpus: dict[str, tuple[str, list[str]]],
) -> None:
    candidates = [ptb_tokenize(said) for said, _ in corpus.values()]
    references = [[ptb_tokenize(text) for text in texts] for _, texts in corpus.values()]
    counted = count_corpus(candidates, references)
    frequency = DocumentFrequency.from_references(references)
    np.testing.assert_allclose(cider_d(counted, frequency), cider_d(counted), rtol=0, atol=1e-12)


def test_another_document_frequency_changes_the_score_and_is_named() -> None:
    results, references = {"1": "a dog", "2": "a cat"}, {"1": ["a dog"], "2": ["a bird"]}
    frequency = DocumentFrequency(1000, {("a",): 900}, "a file")
    standard, other = scored(results, references), scored(results, references, document_frequency=frequency)
    assert standard.corpus["cider_d"] != other.corpus["cider_d"]
    assert standard.corpus["rouge_l"] == other.corpus["rouge_l"]
    assert (standard.document_frequency, other.document_frequency) == ("the references of 2 images", "a file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON object"),
        ('{"format": "img2seq document frequency 1", "images": 0, "ngrams": {}}', '"images"'),
        ('{"format": "img2seq document frequency 1", "images": 2, "ngrams": {"a": 3}}', "'a': expected a count from 1"),
    ],
)
def test_a_wrong_document_frequency_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "df.json").write_text(content)
    with pytest.raises(ScoreError, match=said) as error:
        DocumentFrequency.load(tmp_path / "df.json")
    assert str(tmp_path / "df.json") in str(error.value)


def test_intervals_are_percentiles_of_scores_of_resampled_images() -> None:
    chance = random.Random(0)
    words = ["a", "dog", "cat", "runs", "sits", "on", "grass"]
    captions = {str(i): " ".join(chance.choices(words, k=chance.randint(2, 8))) for i in range(12)}
    references = {i: [" ".join(chance.choices(words, k=6)) for _ in range(3)] for i in captions}
    found = scored(captions, references, resamples=50, seed=3)

    # The obvious way: score each resample, its images under new names.
    draw, image_ids = np.random.default_rng(3), sorted(captions)
    resampled = []
    for _ in range(50):
        drawn = [image_ids[place] for place in draw.integers(0, 12, size=12)]
        again = {f"{n} {i}": captions[i] for n, i in enumerate(drawn)}
        resampled.append(scored(again, {name: references[name.split()[1]] for name in again}, resamples=1).corpus)
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        low, high = np.percentile([scores[name] for scores in resampled], [2.5, 97.5])
        assert found.intervals[name] == pytest.approx((low, high), abs=1e-12)
    for name, (low, high) in found.intervals.items():
        assert low < found.corpus[name] < high
    assert found == scored(captions, references, resamples=50, seed=3)
    assert found.intervals != scored(captions, references, resamples=50, seed=4).intervals
