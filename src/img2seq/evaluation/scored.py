"""Scored captions: of any system's results file, and how an evaluation is written. Imports nothing that computes a model."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from img2seq.config.outputs import ReadOptions
from img2seq.data.picture import Picture
from img2seq.data.sources.content import GUESSED
from img2seq.metrics import Scores, score
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.diversity import Diversity, measure_diversity
from img2seq.metrics.formats import read_pair
from img2seq.report.constant import AgainstConstant
from img2seq.report.evaluation_page import METRIC_NAMES, Scored, evaluation_page
from img2seq.report.gallery import thumbnail
from img2seq.run.results import MADE_FROM, check_results_folder, digests_by_name
from img2seq.run.write import write_json, write_table, write_text

PICTURES = 1000  # more would make the page too heavy to open
FILES = ("metrics.json", "captions.json", "per_image.csv", "report.html")


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        scores: of the captions.
        captions: by image id.
        references: by image id.
        pictures: by image id, where there are any.
        results_ids: the ids that results are written with, by image id, where they are others.
        extra: further figures for metrics.json: loss, perplexity, decoding and the like.
        diversity: of the captions; copies are counted where the captions trained on are known.
        constant: how they compare with the most frequent training caption, where that is known.
    """

    scores: Scores
    captions: dict[str, str]
    references: dict[str, list[str]]
    pictures: dict[str, Picture]
    extra: dict[str, Any]
    diversity: Diversity
    constant: AgainstConstant | None = None
    results_ids: dict[str, str | int] = field(default_factory=dict)


def inputs_of_results(
    results: str, references: str, document_frequency: str | None, split: str | None = None, options: ReadOptions = GUESSED
) -> dict[str, Any]:  # fmt: skip
    """Return what an evaluation of a results file is made from: digests of the files that are read."""
    files = {"results": Path(results), "references": Path(references)}
    if document_frequency is not None:
        files["document_frequency"] = Path(document_frequency)
    said = {} if options == GUESSED else {"read_as": options.model_dump()}
    of_split = {} if split is None else {"split": split}
    return {**of_split, **said, **not_a_file(Path(references)), **digests_by_name(files)}


def not_a_file(captions: Path) -> dict[str, str]:
    """Return where captions are that have no digest: a folder, a pattern."""
    return {} if captions.is_file() else {"captions": str(captions.absolute())}


def check_output(folder: Path, made_from: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise RunError where an evaluation may not be written: before the captions are made."""
    check_results_folder(folder, FILES, made_from, overwrite=overwrite)


def evaluate_results(
    results: str, references: str, *, split: str | None = None, document_frequency: str | None = None, options: ReadOptions = GUESSED
) -> Evaluated:  # fmt: skip
    """Score a COCO results file of any system, against one side of the references or all. Raises ScoreError for what cannot be scored."""
    captions, of_image, notes = read_pair(results, references, split=split, options=options)
    scores = score(captions, of_image, document_frequency=read_document_frequency(document_frequency))
    texts_of = {image_id: list(texts) for image_id, texts in of_image.items()}
    scores.notes.extend(notes)
    return Evaluated(scores, dict(captions), texts_of, {}, {"data": results}, measure_diversity(captions))


def read_document_frequency(path: str | None) -> DocumentFrequency | None:
    """Return a saved document frequency, None where no file is given."""
    return None if path is None else DocumentFrequency.load(Path(path))


def write_evaluation(found: Evaluated, folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write metrics.json, captions.json (COCO results), per_image.csv and report.html."""
    scores = found.scores
    metrics = {name: scores.corpus[name] for name in METRIC_NAMES if name in scores.corpus}
    data = metrics | found.extra
    data |= {
        "images": len(found.captions),
        "intervals_95": {name: list(interval) for name, interval in scores.intervals.items()},
        "not_computed": scores.not_computed,
        "document_frequency": scores.document_frequency,
        "diversity": asdict(found.diversity) | {"vocabulary_used": found.diversity.vocabulary_used},
        "most_frequent_caption": found.constant.as_json() if found.constant else None,
        "notes": scores.notes,
        MADE_FROM: dict(made_from),
    }
    write_json(folder / "metrics.json", data)
    results = [{"image_id": found.results_ids.get(i, i), "caption": text} for i, text in found.captions.items()]
    write_json(folder / "captions.json", results)
    rows = [
        {"image_id": i, "caption": text}
        | {name: scores.per_image[i][name] for name in metrics if name in scores.per_image[i]}
        for i, text in found.captions.items()
    ]
    columns = list(rows[0]) if rows else ["image_id", "caption"]
    write_table(folder / "per_image.csv", columns, rows)
    order = "cider_d"
    ranked = sorted(found.captions, key=lambda i: scores.per_image[i][order])
    shown = ranked if len(ranked) <= PICTURES else ranked[:: math.ceil(len(ranked) / PICTURES)]
    cards = [
        Scored(i, found.captions[i], found.references[i], scores.per_image[i], _picture(found.pictures.get(i)))
        for i in shown
    ]
    write_text(folder / "report.html", evaluation_page(cards, data, n_images=len(ranked)))


def _picture(path: Picture | None) -> bytes | None:
    if path is None:
        return None
    buffer = io.BytesIO()
    thumbnail(path, 224).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def table(found: Evaluated) -> str:
    """Return the scores as text, one metric a line with its interval."""
    scores, lines = found.scores, []
    for name in METRIC_NAMES:
        if name in scores.corpus:
            low, high = scores.intervals[name]
            lines.append(f"{name:<10} {scores.corpus[name]:.4f}   95 % interval {low:.4f} to {high:.4f}")
        else:
            lines.append(f"{name:<10} {scores.not_computed.get(name, 'not computed')}")
    if "loss" in found.extra:
        lines.append(
            f"{'loss':<10} {found.extra['loss']:.4f}   nats per token, perplexity {found.extra['perplexity']:.2f}"
        )
    lines.append(f"document frequency of CIDEr-D: {scores.document_frequency}")
    if found.constant is not None:
        lines.append(found.constant.sentence)
    alarm = [found.diversity.alarm] if found.diversity.alarm else []
    return "\n".join([*lines, *(f"warning: {note}" for note in (*scores.notes, *alarm))])
