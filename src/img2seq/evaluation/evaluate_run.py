"""`img2seq evaluate`: caption a data set and score the captions, or score any system's results file."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from img2seq.build.images import InputImages, cache_folder
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.data.caption_set import CaptionSet
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import Problems, match_images, settle
from img2seq.data.sources.read import read_captions
from img2seq.data.text import clean_name
from img2seq.errors import DataError, RunError
from img2seq.inference.captioner import Captioner
from img2seq.metrics import Scores, score
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.diversity import Diversity, measure_diversity
from img2seq.metrics.formats import read_pair
from img2seq.progress import Announcer
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
        pictures: image files by image id, where there are any.
        extra: further figures for metrics.json: loss, perplexity, decoding and the like.
        diversity: of the captions; copies are counted where the captions trained on are known.
    """

    scores: Scores
    captions: dict[str, str]
    references: dict[str, list[str]]
    pictures: dict[str, Path]
    extra: dict[str, Any]
    diversity: Diversity


def inputs_of_run(
    captioner: Captioner,
    decoding: Decoding,
    *,
    split: str,
    captions_file: str | None,
    images_folder: str | None,
    document_frequency: str | None,
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
        "data": "captions" if captions_file else f"{split} split",
        "images": None if images_folder is None else str(Path(images_folder).resolve()),
        **asdict(decoding),
        **digests_by_name(files),
    }


def inputs_of_results(results: str, references: str, document_frequency: str | None) -> dict[str, Any]:
    """Return what an evaluation of a results file is made from: digests of the files that are read."""
    files = {"results": Path(results), "references": Path(references)}
    if document_frequency is not None:
        files["document_frequency"] = Path(document_frequency)
    return digests_by_name(files)


def check_output(folder: Path, made_from: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise RunError where an evaluation may not be written: before the captions are made."""
    check_results_folder(folder, FILES, made_from, overwrite=overwrite)


def evaluate_run(
    captioner: Captioner,
    decoding: Decoding,
    *,
    split: str = "valid",
    captions_file: str | None = None,
    images_folder: str | None = None,
    document_frequency: str | None = None,
    announce: Announcer,
) -> Evaluated:
    """Caption a side of a run's split, or another data set, and score the captions.

    Args:
        captioner: of the run.
        decoding: how to search.
        split: valid or train; not used with `captions_file`.
        captions_file: another table of captions, ID,Sequence.
        images_folder: its images.
        document_frequency: a saved file for CIDEr-D, in place of the references.
        announce: for progress.

    Raises:
        DataError: for captions and images that do not fit, listing all.
    """
    trained = captioner.trained
    basic = load_config(trained.run.config).globals.basic_experiment
    (entry,) = trained.config.inputs
    references, training = _references(trained, split, captions_file)
    problems = Problems()
    folder = images_folder or entry.input_info.input_source
    files, _ = match_images(references, folder, captioner.input_name, problems)
    with announce.bar("reading images", len(files)) as advance:
        table = cache_pixels(files, captioner.spec, cache_folder(basic), workers=2, progress=advance)
    problems.add(f"image(s) in {folder} cannot be used", list(table.problems.values()))
    settle(problems, "error")
    ids = list(references)
    rows = InputImages(entry, table, trained.model, basic, announce).of(ids)
    data = CaptionSet(references, trained.tokenizer, max_length=trained.facts.max_length, images={entry.name: rows})
    loss = _loss(trained, data, announce)
    captions: dict[str, str] = {}
    with announce.bar("captioning", len(ids)) as advance:
        for start in range(0, len(ids), captioner.batch_size):
            part = ids[start : start + captioner.batch_size]
            pixels, features = data.read_images(range(start, start + len(part)))
            found = captioner.predictor.captions(decoding, names=part, pixels=pixels, features=features)
            captions |= {image_id: caption.text for image_id, caption in zip(part, found, strict=True)}
            advance(len(part))
    scores = score(captions, references, document_frequency=_document_frequency(document_frequency))
    extra = {"loss": loss, "perplexity": math.exp(loss), "step": trained.checkpoint.step, "decoding": asdict(decoding)}
    extra["data"] = captions_file or f"{split} split"
    diversity = measure_diversity(captions, training_captions=training or None)
    return Evaluated(scores, captions, references, files, extra, diversity)


def _references(trained: TrainedRun, split: str, captions_file: str | None) -> tuple[dict[str, list[str]], list[str]]:
    """Return references by image id, and the captions the run was trained on where its table is still there."""
    source = trained.config.output.output_info.output_source
    sides = {
        side: [clean_name(i) for i in ids] for side, ids in read_json(trained.run.split).items()
    }  # early runs kept NFD
    own = read_captions(source).captions if Path(source).exists() else {}
    training = [text for image_id in sides["train"] for text in own.get(image_id, [])]
    if captions_file is not None:
        table = read_captions(captions_file)
        problems = Problems()
        problems.add(f"row(s) of {captions_file} cannot be used", table.problems)
        settle(problems, "error")
        return table.captions, training
    if not own:
        raise RunError(f"{source}: the run's captions are not there; give --captions FILE --images FOLDER")
    if missing := [image_id for image_id in sides[split] if image_id not in own]:
        raise DataError(
            f"{source}: has no caption of {len(missing)} of the run's {split} images, {missing[0]} among them"
        )
    return {image_id: own[image_id] for image_id in sides[split]}, training


def _loss(trained: TrainedRun, data: CaptionSet, announce: Announcer) -> float:
    """Return the validation loss, in nats per token, as training measures it."""
    with announce.bar("measuring the loss", len(data)) as advance:
        return image_losses(trained.model, data, batch_size=LOSS_BATCH, advance=advance).per_token


def evaluate_results(results: str, references: str, *, document_frequency: str | None = None) -> Evaluated:
    """Score a COCO results file of any system. Raises ScoreError for files that cannot be scored."""
    captions, of_image = read_pair(results, references)
    scores = score(captions, of_image, document_frequency=_document_frequency(document_frequency))
    texts_of = {image_id: list(texts) for image_id, texts in of_image.items()}
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
        "notes": scores.notes,
        MADE_FROM: dict(made_from),
    }
    write_json(folder / "metrics.json", data)
    write_json(folder / "captions.json", [{"image_id": i, "caption": text} for i, text in found.captions.items()])
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


def _picture(path: Path | None) -> bytes | None:
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
    alarm = [found.diversity.alarm] if found.diversity.alarm else []
    return "\n".join([*lines, *(f"warning: {note}" for note in (*scores.notes, *alarm))])
