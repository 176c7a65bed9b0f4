"""Scored captions: of any system's results file, and how an evaluation is written. Imports nothing that computes a model."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from img2seq.config.decoding import Decoding
from img2seq.config.outputs import ReadOptions
from img2seq.data.picture import Picture
from img2seq.data.records import Problems, settle
from img2seq.data.sources.content import GUESSED
from img2seq.data.sources.read import CaptionsFound, read_captions
from img2seq.errors import DataError, RunError
from img2seq.metrics import Scores, score
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.diversity import Diversity, measure_diversity
from img2seq.metrics.formats import read_pair
from img2seq.metrics.most_frequent import most_frequent
from img2seq.progress import Announcer
from img2seq.report.constant import AgainstConstant, against_constant
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


@dataclass(frozen=True)
class EvaluationData:
    """What a model's captions are scored on.

    Attributes:
        split: valid, train or test; of `captions_file` where that is given, else of the run. None is valid, or all of a file without a split.
        captions_file: other captions than the run's, of any format.
        images_folder: their images; a folder, or what holds them.
        document_frequency: a saved file for CIDEr-D, in place of the references.
        options: what is said of the format of `captions_file`.
    """

    split: str | None = None
    captions_file: str | None = None
    images_folder: str | None = None
    document_frequency: str | None = None
    options: ReadOptions = GUESSED

    @property
    def name(self) -> str:
        """Return what scores are said to be of."""
        if self.captions_file is None:
            return f"{self.split or 'valid'} split"
        return " ".join(filter(None, (self.captions_file, self.split)))


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


def inputs_of_captions(
    decoding: Decoding, on: EvaluationData, *, source: str, model: Path | None = None
) -> dict[str, Any]:
    """Return what an evaluation of a model is made from: settings, and digests of the files that are read.

    Args:
        decoding: how to search.
        on: what is scored.
        source: the captions that are scored against.
        model: a file that changes with the model, where one file does.
    """
    captions = Path(source)
    files = {"checkpoint": model, "captions": captions, "document_frequency": on.document_frequency}
    return {
        "data": "captions" if on.captions_file else on.name,
        **({"split": on.split} if on.captions_file and on.split else {}),
        **({} if on.options == GUESSED else {"read_as": on.options.model_dump()}),
        **not_a_file(captions),
        "images": None if on.images_folder is None else str(Path(on.images_folder).resolve()),
        **asdict(decoding),
        **digests_by_name({name: Path(path) for name, path in files.items() if path is not None}),
    }


def not_a_file(captions: Path) -> dict[str, str]:
    """Return where captions are that have no digest: a folder, a pattern."""
    return {} if captions.is_file() else {"captions": str(captions.absolute())}


def check_output(folder: Path, made_from: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise RunError where an evaluation may not be written: before the captions are made."""
    check_results_folder(folder, FILES, made_from, overwrite=overwrite)


def without_split(folder: Path) -> RunError:
    """Return what is said of an export that is to be evaluated on nothing."""
    return RunError(f"{folder}: is an export, which holds no split; give --captions FILE --images FOLDER")


def captions_of_file(
    captions_file: str, split: str | None, options: ReadOptions, announce: Announcer
) -> tuple[CaptionsFound, list[str]]:
    """Return the captions of a file, and which of its images are of a side of its split: valid by default, or all. Raises DataError."""
    found = read_captions(captions_file, options)
    announce.say("\n".join([found.summary, *found.notes]))
    problems = Problems()
    problems.add(f"row(s) of {captions_file} cannot be used", found.problems)
    settle(problems, "error")
    given = found.splits
    side = split or ("valid" if len(set(given.values())) > 1 else None)  # all of what is of one side
    ids = [i for i in found.captions if side is None or given.get(i) == side]
    if not ids:
        raise DataError(f"{captions_file}: expected images of the split {side}, found {found.summary}")
    return found, ids


def evaluated(
    found: CaptionsFound,
    captions: dict[str, str],
    pictures: dict[str, Picture],
    extra: dict[str, Any],
    *,
    on: EvaluationData,
    training: Sequence[str],
) -> Evaluated:
    """Score a model's captions.

    Args:
        found: what is scored against.
        captions: by image id.
        pictures: by image id.
        extra: further figures for metrics.json.
        on: what they are scored on.
        training: captions that the model was trained on, where they are known.
    """
    references = {image_id: found.captions[image_id] for image_id in captions}
    frequency = read_document_frequency(on.document_frequency)
    scores = score(captions, references, document_frequency=frequency)
    cider = {i: scores.per_image[i]["cider_d"] for i in captions}
    constant = against_constant(cider, references, most_frequent(training), frequency)
    diversity = measure_diversity(captions, training_captions=training or None)
    own = {i: name for i in captions if (name := found.results_id(i)) != i}
    return Evaluated(scores, captions, references, pictures, extra | {"data": on.name}, diversity, constant, own)


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
    lines.append(found.diversity.sentence)
    lines.append(f"document frequency of CIDEr-D: {scores.document_frequency}")
    if found.constant is not None:
        lines.append(found.constant.sentence)
    alarm = [found.diversity.alarm] if found.diversity.alarm else []
    return "\n".join([*lines, *(f"warning: {note}" for note in (*scores.notes, *alarm))])
