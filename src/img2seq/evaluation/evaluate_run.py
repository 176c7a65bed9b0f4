"""`img2seq evaluate RUN`: caption a data set and score the captions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from img2seq.build.images import InputImages, cache_folder
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.data.caption_set import CaptionSet
from img2seq.data.picture import Picture
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import Problems, settle
from img2seq.data.sources.content import is_pattern
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.data.text import clean_name
from img2seq.errors import DataError, RunError
from img2seq.evaluation.scored import (
    Evaluated,
    EvaluationData,
    captions_of_file,
    evaluated,
    inputs_of_captions,
    without_split,
)
from img2seq.inference.captioner import Captioner
from img2seq.progress import Announcer
from img2seq.run.folder import read_json
from img2seq.run.stored_decoding import is_of, read_stored
from img2seq.training.validation import image_losses

LOSS_BATCH = 64


@dataclass(frozen=True)
class ScoredData:
    """What a run is scored on.

    Attributes:
        found: the captions that it is scored against.
        files: the pictures, by image id.
        training: captions that it was trained on, where they are still there.
        data: the images as the model sees them, with their captions.
    """

    found: CaptionsFound
    files: dict[str, Picture]
    training: list[str]
    data: CaptionSet


def inputs_of_run(captioner: Captioner, decoding: Decoding, on: EvaluationData) -> dict[str, Any]:
    """Return what an evaluation of a run is made from: the checkpoint, settings, and digests of the files that are read."""
    trained = captioner.trained
    source = on.captions_file or trained.config.output.output_info.output_source
    return inputs_of_captions(decoding, on, source=source, model=trained.checkpoint.path / "manifest.json")


def evaluate_run(captioner: Captioner, decoding: Decoding, on: EvaluationData, *, announce: Announcer) -> Evaluated:
    """Caption a side of a run's split, or another data set, and score the captions.

    Args:
        captioner: of the run.
        decoding: how to search.
        on: what is scored.
        announce: for progress.

    Raises:
        DataError: for captions and images that do not fit, listing all.
    """
    trained = captioner.trained
    if not is_of(read_stored(trained.run, {}), trained.checkpoint):
        announce.say(f"{trained.run.decoding}: chosen for another checkpoint, and not used; --tune chooses anew")
    scored = scored_data(captioner, on, announce)
    data, ids = scored.data, scored.data.image_ids
    loss = _loss(trained, data, announce)
    captions: dict[str, str] = {}
    with announce.bar("captioning", len(ids)) as advance:
        for start in range(0, len(ids), captioner.batch_size):
            part = ids[start : start + captioner.batch_size]
            pixels, features = data.read_images(range(start, start + len(part)))
            written = captioner.predictor.captions(decoding, names=part, pixels=pixels, features=features)
            captions |= {image_id: caption.text for image_id, caption in zip(part, written, strict=True)}
            advance(len(part))
    extra = {"loss": loss, "perplexity": math.exp(loss), "step": trained.checkpoint.step, "decoding": asdict(decoding)}
    return evaluated(scored.found, captions, scored.files, extra, on=on, training=scored.training)


def scored_data(captioner: Captioner, on: EvaluationData, announce: Announcer) -> ScoredData:
    """Read what a run is scored on; the arguments are those of `evaluate_run`."""
    trained = captioner.trained
    basic = load_config(trained.run.config).globals.basic_experiment
    (entry,) = trained.config.inputs
    found, ids, training = references_of_run(trained, on, announce)
    references = {image_id: found.captions[image_id] for image_id in ids}
    problems = Problems()
    source = on.captions_file or trained.config.output.output_info.output_source
    folder = on.images_folder or on.captions_file or entry.input_info.input_source
    files, _ = match_images(found, ids, folder, captioner.input_name, problems, source)
    with announce.bar("reading images", len(files)) as advance:
        table = cache_pixels(files, captioner.spec, cache_folder(basic), workers=2, progress=advance)
    problems.add(f"image(s) in {folder} cannot be used", list(table.problems.values()))
    settle(problems, "error")
    rows = InputImages(entry, table, trained.model, basic, announce).of(ids)
    data = CaptionSet(references, trained.tokenizer, max_length=trained.facts.max_length, images={entry.name: rows})
    return ScoredData(found, files, training, data)


def references_of_run(
    trained: TrainedRun, on: EvaluationData, announce: Announcer
) -> tuple[CaptionsFound, list[str], list[str]]:
    """Return what is scored against, which of its images, and the captions the run was trained on where they are still there."""
    info = trained.config.output.output_info
    source = info.output_source
    is_export = not trained.run.split.is_file() and trained.run.export.is_file()
    if on.captions_file is None and is_export:
        raise without_split(trained.run.path)
    split_of_run = {} if is_export else read_json(trained.run.split)
    sides = {side: [clean_name(i) for i in ids] for side, ids in split_of_run.items()}  # early runs kept NFD
    own = _own_captions(trained, is_needed=on.captions_file is None)
    training = (
        [text for image_id in sides.get("train", []) for text in own.captions.get(image_id, [])]
        if own is not None
        else []
    )
    if on.captions_file is not None:
        return *captions_of_file(on.captions_file, on.split, on.options, announce), training
    if own is None:
        raise RunError(f"{source}: the run's captions are not there; give --captions FILE --images FOLDER")
    split = on.split or "valid"
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
