"""`img2seq evaluate EXPORT`: caption a data set without torch and score the captions. The loss is the run's to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from img2seq.config.decoding import Decoding
from img2seq.data.image import decode
from img2seq.data.picture import Picture, picture_bytes
from img2seq.data.pixels import map_in_threads
from img2seq.data.records import Problems, settle
from img2seq.data.sources.read import CaptionsFound, match_images
from img2seq.errors import DataError
from img2seq.evaluation.scored import (
    Evaluated,
    EvaluationData,
    captions_of_file,
    evaluated,
    inputs_of_captions,
    without_split,
)
from img2seq.inference.captioner import Captioner, Views
from img2seq.progress import Announcer
from img2seq.run.onnx_folder import OnnxFolder

READERS = 2


def inputs_of_export(captioner: Captioner, decoding: Decoding, on: EvaluationData) -> dict[str, Any]:
    """Return what an evaluation of an export is made from. Raises RunError where it is not said on which captions."""
    folder = OnnxFolder(captioner.loaded.path)
    if on.captions_file is None:
        raise without_split(folder.path)
    made_from = inputs_of_captions(decoding, on, source=on.captions_file, model=folder.export)
    return {"precision": captioner.loaded.precision, **made_from}


def evaluate_export(captioner: Captioner, decoding: Decoding, on: EvaluationData, *, announce: Announcer) -> Evaluated:
    """Caption a data set and score the captions; arguments and errors are those of `evaluate_run`."""
    if on.captions_file is None:
        raise without_split(captioner.loaded.path)
    found, ids = captions_of_file(on.captions_file, on.split, on.options, announce)
    folder = on.images_folder or on.captions_file
    captions, files = caption_pictures(
        captioner, found, ids, decoding, source=on.captions_file, folder=folder, announce=announce
    )
    extra = {"step": captioner.loaded.step, "precision": captioner.loaded.precision, "decoding": asdict(decoding)}
    return evaluated(found, captions, files, extra, on=on, training=())


def caption_pictures(
    captioner: Captioner,
    found: CaptionsFound,
    ids: Sequence[str],
    decoding: Decoding,
    *,
    source: str,
    folder: str,
    announce: Announcer,
) -> tuple[dict[str, str], dict[str, Picture]]:
    """Return captions and pictures of these images of a source, by id. Raises DataError for what the folder lacks or cannot be used, listing all."""
    problems = Problems()
    files, _ = match_images(found, ids, folder, captioner.input_name, problems, source)
    settle(problems, "error")
    captions: dict[str, str] = {}
    broken: list[str] = []

    def read(image_id: str) -> Views:
        picture = files[image_id]
        try:
            data = picture_bytes(picture, captioner.spec)
            return {name: decode(data, spec, str(picture)) for name, spec in captioner.specs.items()}
        except DataError as error:
            broken.append(str(error))
            return {}

    with announce.bar("captioning", len(ids)) as advance:
        for start in range(0, len(ids), captioner.batch_size):
            part = ids[start : start + captioner.batch_size]
            views = list(map_in_threads(read, part, READERS))
            if not broken:  # all that are broken are listed, and nothing is captioned in vain
                written = captioner.caption_views(views, decoding, names=part)
                captions |= {image_id: caption.text for image_id, caption in zip(part, written, strict=True)}
            advance(len(part))
    problems.add(f"image(s) in {folder} cannot be used", broken)
    settle(problems, "error")
    return captions, files
