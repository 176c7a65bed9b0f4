"""`img2seq evaluate RUN RUN ...` and `--mirror`: caption a data set with several models that are averaged, and score the captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.config.decoding import Decoding
from img2seq.data.text import clean_name
from img2seq.errors import RunError
from img2seq.evaluation.evaluate_export import caption_pictures
from img2seq.evaluation.scored import (
    Evaluated,
    EvaluationData,
    captions_of_file,
    evaluated,
    inputs_of_captions,
    without_split,
)
from img2seq.inference.captioner import Captioner
from img2seq.inference.loaded import Loaded
from img2seq.progress import Announcer, counted
from img2seq.run.folder import read_json
from img2seq.run.onnx_folder import OnnxFolder
from img2seq.run.results import digests

if TYPE_CHECKING:
    from img2seq.build.trained import TrainedRun


def inputs_of_ensemble(captioner: Captioner, decoding: Decoding, on: EvaluationData) -> dict[str, Any]:
    """Return what an evaluation of several models is made from. Raises RunError where it is not said on which captions."""
    members = captioner.loaded.members
    source = on.captions_file or _run_with_split(members).config.output.output_info.output_source
    return {
        "mirror": captioner.loaded.mirror,
        "precision": [member.precision for member in members],
        "checkpoints_sha256": digests(map(_model_file, members)),
        **inputs_of_captions(decoding, on, source=source),
    }


def evaluate_ensemble(
    captioner: Captioner, decoding: Decoding, on: EvaluationData, *, announce: Announcer
) -> Evaluated:
    """Caption a side of the first run's split, or another data set, and score the captions; arguments are those of `evaluate_run`.

    Raises:
        RunError: if another of the runs was trained on images that it would be scored on.
        DataError: for captions and images that do not fit, listing all.
    """
    members, training = captioner.loaded.members, list[str]()
    if on.captions_file is None:
        from img2seq.evaluation.evaluate_run import references_of_run  # with torch, which exports do without

        trained = _run_with_split(members)
        source = trained.config.output.output_info.output_source
        found, ids, training = references_of_run(trained, on, announce)
        if on.split != "train":
            _check_held_out(members, source, ids)
        folder = on.images_folder or trained.config.inputs[0].input_info.input_source
    else:
        source = on.captions_file
        found, ids = captions_of_file(source, on.split, on.options, announce)
        folder = on.images_folder or source
    captions, files = caption_pictures(captioner, found, ids, decoding, source=source, folder=folder, announce=announce)
    extra = {
        "models": [f"{member.path.name}, step {member.step:,}" for member in members],
        "mirror": captioner.loaded.mirror,
        "precision": [member.precision for member in members],
        "decoding": asdict(decoding),
    }
    return evaluated(found, captions, files, extra, on=on, training=training)


def _run_with_split(members: Sequence[Loaded]) -> TrainedRun:
    """Return the first that holds a split, as exports do not."""
    for member in members:
        if member.trained is not None and member.trained.run.split.is_file():
            return member.trained
    raise without_split(members[0].path)


def _check_held_out(members: Sequence[Loaded], source: str, ids: Sequence[str]) -> None:
    """Raise RunError where a run of the same captions was trained on one of these images: exports do not say on which they were."""
    for member in members:
        trained = member.trained
        if (
            trained is None
            or not trained.run.split.is_file()
            or trained.config.output.output_info.output_source != source
        ):
            continue
        seen = {clean_name(image_id) for image_id in read_json(trained.run.split).get("train", [])}
        if n := sum(image_id in seen for image_id in ids):
            raise RunError(
                f"{member.path}: was trained on {counted(n, 'image')} of the {len(ids):,} that are held out of {members[0].path}: "
                "scores would mean nothing; give --captions FILE --images FOLDER"
            )


def _model_file(member: Loaded) -> Path:
    """Return a file that changes with the model."""
    if member.trained is None:
        return OnnxFolder(member.path).export
    return member.trained.checkpoint.path / "manifest.json"
