"""`img2seq evaluate`: caption a data set and score the captions, or score any system's results file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from img2seq.build.images import InputImages, cache_folder
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.config.outputs import ReadOptions
from img2seq.data.caption_set import CaptionSet
from img2seq.data.picture import Picture
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import Problems, settle
from img2seq.data.sources.content import GUESSED, is_pattern
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.data.text import clean_name
from img2seq.errors import DataError, RunError
from img2seq.inference.captioner import Captioner
from img2seq.metrics import Scores, score
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.diversity import Diversity, measure_diversity
from img2seq.metrics.formats import read_pair
from img2seq.metrics.most_frequent import most_frequent
from img2seq.progress import Announcer
from img2seq.report.constant import AgainstConstant, against_constant
from img2seq.report.evaluation_page import METRIC_NAMES, Scored, evaluation_page
from img2seq.report.gallery import thumbnail
from img2seq.run.folder import read_json
from img2seq.run.results import MADE_FROM, check_results_folder, digests_by_name
from img2seq.run.write import write_json, write_table, write_text
from img2seq.training.validation import image_losses

LOSS_BATCH = 64
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


def inputs_of_run(
    captioner: Captioner,
    decoding: Decoding,
    *,
    split: str | None,
    captions_file: str | None,
    images_folder: str | None,
    document_frequency: str | None,
    options: ReadOptions = GUESSED,
) -> dict[str, Any]:
    """Return what an evaluation of a run is made from: the checkpoint, settings, and digests of the files that are read."""
    trained = captioner.trained
    captions = Path(captions_file or trained.config.output.output_info.output_source)
    files = {
        "checkpoint": trained.checkpoint.path / "manifest.json",
        "captions": captions,
        **({} if document_frequency is None else {"document_frequency": Path(document_frequency)}),
    }
    return {
        "data": "captions" if captions_file else f"{split or 'valid'} split",
        **({"split": split} if captions_file and split else {}),
        **({} if options == GUESSED else {"read_as": options.model_dump()}),
        **_not_a_file(captions),
        "images": None if images_folder is None else str(Path(images_folder).resolve()),
        **asdict(decoding),
        **digests_by_name(files),
    }


def inputs_of_results(
    results: str, references: str, document_frequency: str | None, split: str | None = None, options: ReadOptions = GUESSED
) -> dict[str, Any]:  # fmt: skip
    """Return what an evaluation of a results file is made from: digests of the files that are read."""
    files = {"results": Path(results), "references": Path(references)}
    if document_frequency is not None:
        files["document_frequency"] = Path(document_frequency)
    said = {} if options == GUESSED else {"read_as": options.model_dump()}
    of_split = {} if split is None else {"split": split}
    return {**of_split, **said, **_not_a_file(Path(references)), **digests_by_name(files)}


def _not_a_file(captions: Path) -> dict[str, str]:
    """Return where captions are that have no digest: a folder, a pattern."""
    return {} if captions.is_file() else {"captions": str(captions.absolute())}


def check_output(folder: Path, made_from: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise RunError where an evaluation may not be written: before the captions are made."""
    check_results_folder(folder, FILES, made_from, overwrite=overwrite)


def evaluate_run(
    captioner: Captioner,
    decoding: Decoding,
    *,
    split: str | None = None,
    captions_file: str | None = None,
    images_folder: str | None = None,
    document_frequency: str | None = None,
    options: ReadOptions = GUESSED,
    announce: Announcer,
) -> Evaluated:
    """Caption a side of a run's split, or another data set, and score the captions.

    Args:
        captioner: of the run.
        decoding: how to search.
        split: valid, train or test; of `captions_file` where that is given, else of the run. None is valid, or all of a file without a split.
        captions_file: other captions, of any format.
        images_folder: their images; a folder, or what holds them.
        options: what is said of the format of `captions_file`.
        document_frequency: a saved file for CIDEr-D, in place of the references.
        announce: for progress.

    Raises:
        DataError: for captions and images that do not fit, listing all.
    """
    trained = captioner.trained
    basic = load_config(trained.run.config).globals.basic_experiment
    (entry,) = trained.config.inputs
    found, ids, training = _references(trained, split, captions_file, options, announce)
    references = {image_id: found.captions[image_id] for image_id in ids}
    problems = Problems()
    source = captions_file or trained.config.output.output_info.output_source
    folder = images_folder or captions_file or entry.input_info.input_source
    files, _ = match_images(found, ids, folder, captioner.input_name, problems, source)
    with announce.bar("reading images", len(files)) as advance:
        table = cache_pixels(files, captioner.spec, cache_folder(basic), workers=2, progress=advance)
    problems.add(f"image(s) in {folder} cannot be used", list(table.problems.values()))
    settle(problems, "error")
    rows = InputImages(entry, table, trained.model, basic, announce).of(ids)
    data = CaptionSet(references, trained.tokenizer, max_length=trained.facts.max_length, images={entry.name: rows})
    loss = _loss(trained, data, announce)
    captions: dict[str, str] = {}
    with announce.bar("captioning", len(ids)) as advance:
        for start in range(0, len(ids), captioner.batch_size):
            part = ids[start : start + captioner.batch_size]
            pixels, features = data.read_images(range(start, start + len(part)))
            written = captioner.predictor.captions(decoding, names=part, pixels=pixels, features=features)
            captions |= {image_id: caption.text for image_id, caption in zip(part, written, strict=True)}
            advance(len(part))
    frequency = _document_frequency(document_frequency)
    scores = score(captions, references, document_frequency=frequency)
    cider = {i: scores.per_image[i]["cider_d"] for i in ids}
    constant = against_constant(cider, references, most_frequent(training), frequency)
    extra = {"loss": loss, "perplexity": math.exp(loss), "step": trained.checkpoint.step, "decoding": asdict(decoding)}
    extra["data"] = " ".join(filter(None, (captions_file, split))) if captions_file else f"{split or 'valid'} split"
    diversity = measure_diversity(captions, training_captions=training or None)
    own = {i: name for i in ids if (name := found.results_id(i)) != i}
    return Evaluated(scores, captions, references, files, extra, diversity, constant, own)


def _references(
    trained: TrainedRun, split: str | None, captions_file: str | None, options: ReadOptions, announce: Announcer
) -> tuple[CaptionsFound, list[str], list[str]]:
    """Return what is scored against, which of its images, and the captions the run was trained on where they are still there."""
    info = trained.config.output.output_info
    source = info.output_source
    if (is_export := trained.run.export.is_file()) and captions_file is None:
        raise RunError(f"{trained.run.path}: is an export, which holds no split; give --captions FILE --images FOLDER")
    split_of_run = {} if is_export else read_json(trained.run.split)
    sides = {side: [clean_name(i) for i in ids] for side, ids in split_of_run.items()}  # early runs kept NFD
    own = _own_captions(trained, is_needed=captions_file is None)
    training = (
        [text for image_id in sides.get("train", []) for text in own.captions.get(image_id, [])]
        if own is not None
        else []
    )
    if captions_file is not None:
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
        return found, ids, training
    if own is None:
        raise RunError(f"{source}: the run's captions are not there; give --captions FILE --images FOLDER")
    split = split or "valid"
    if not (ids := sides.get(split, [])):
        raise RunError(f"{trained.run.split}: this run has no {split} part: its data came without one")
    if missing := [image_id for image_id in ids if image_id not in own.captions]:
        raise DataError(
            f"{source}: has no caption of {len(missing)} of the run's {split} images, {missing[0]} among them"
        )
    return own, ids, training


def _own_captions(trained: TrainedRun, *, is_needed: bool) -> CaptionsFound | None:
    """Return the captions that a run was trained on, None where they are gone, or damaged and not needed."""
    info = trained.config.output.output_info
    if not (Path(info.output_source).exists() or is_pattern(info.output_source)):
        return None
    try:
        return read_captions(info.output_source, info)
    except DataError:
        if is_needed:
            raise
        return None


def _loss(trained: TrainedRun, data: CaptionSet, announce: Announcer) -> float:
    """Return the validation loss, in nats per token, as training measures it."""
    with announce.bar("measuring the loss", len(data)) as advance:
        return image_losses(trained.model, data, batch_size=LOSS_BATCH, advance=advance).per_token


def evaluate_results(
    results: str, references: str, *, split: str | None = None, document_frequency: str | None = None, options: ReadOptions = GUESSED
) -> Evaluated:  # fmt: skip
    """Score a COCO results file of any system, against one side of the references or all. Raises ScoreError for what cannot be scored."""
    captions, of_image, notes = read_pair(results, references, split=split, options=options)
    scores = score(captions, of_image, document_frequency=_document_frequency(document_frequency))
    texts_of = {image_id: list(texts) for image_id, texts in of_image.items()}
    scores.notes.extend(notes)
    return Evaluated(scores, dict(captions), texts_of, {}, {"data": results}, measure_diversity(captions))


def _document_frequency(path: str | None) -> DocumentFrequency | None:
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
