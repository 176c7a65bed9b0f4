"""`img2seq evaluate RUN RUN ...` and `--mirror`: caption a data set with several models that are averaged, and score the captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.config.decoding import Decoding
from img2seq.config.outputs import ReadOptions
from img2seq.data.records import Problems, settle
from img2seq.data.sources.content import GUESSED
from img2seq.data.sources.read import match_images
from img2seq.data.text import clean_name
from img2seq.errors import RunError
from img2seq.evaluation.evaluate_export import caption_pictures
from img2seq.evaluation.scored import Evaluated, captions_of_file, evaluated, inputs_of_captions, without_split
from img2seq.inference.captioner import Captioner
from img2seq.inference.loaded import Loaded
from img2seq.progress import Announcer, counted
from img2seq.run.folder import read_json
from img2seq.run.onnx_folder import OnnxFolder
from img2seq.run.results import digests

if TYPE_CHECKING:
    from img2seq.build.trained import TrainedRun


def inputs_of_ensemble(
    captioner: Captioner,
    decoding: Decoding,
    *,
    split: str | None,
    captions_file: str | None,
    images_folder: str | None,
    document_frequency: str | None,
    options: ReadOptions = GUESSED,
) -> dict[str, Any]:
    """Return what an evaluation of several models is made from. Raises RunError where it is not said on which captions."""
    members = captioner.loaded.members
    captions = captions_file or _run_with_split(members).config.output.output_info.output_source
    made_from = inputs_of_captions(
        _model_file(members[0]), Path(captions), decoding,
        images_folder=images_folder, document_frequency=document_frequency, options=options,
    )  # fmt: skip
    del made_from["checkpoint_sha256"]  # by which one model's own scores are found
    return {
        "data": "captions" if captions_file else f"{split or 'valid'} split",
        **({"split": split} if captions_file and split else {}),
        "mirror": captioner.loaded.mirror,
        "checkpoints_sha256": digests(map(_model_file, members)),
        **made_from,
    }


def evaluate_ensemble(
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
    """Caption a side of the first run's split, or another data set, and score the captions; arguments are those of `evaluate_run`.

    Raises:
        RunError: if another of the runs was trained on images that it would be scored on.
        DataError: for captions and images that do not fit, listing all.
    """
    members, training = captioner.loaded.members, list[str]()
    if captions_file is None:
        from img2seq.evaluation.evaluate_run import references_of_run  # with torch, which exports do without

        trained = _run_with_split(members)
        source = trained.config.output.output_info.output_source
        found, ids, training = references_of_run(trained, split, None, options, announce)
        if split != "train":
            _check_held_out(members, source, ids)
        folder = images_folder or trained.config.inputs[0].input_info.input_source
    else:
        source = captions_file
        found, ids = captions_of_file(captions_file, split, options, announce)
        folder = images_folder or captions_file
    problems = Problems()
    files, _ = match_images(found, ids, folder, captioner.input_name, problems, source)
    settle(problems, "error")
    captions = caption_pictures(captioner, files, ids, decoding, folder, announce)
    extra = {
        "models": [f"{member.path.name}, step {member.step:,}" for member in members],
        "mirror": captioner.loaded.mirror,
        "decoding": asdict(decoding),
        "data": " ".join(filter(None, (captions_file, split))) if captions_file else f"{split or 'valid'} split",
    }
    return evaluated(found, captions, files, extra, training=training, document_frequency=document_frequency)


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
