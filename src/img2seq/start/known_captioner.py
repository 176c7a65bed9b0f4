"""A captioner of many photographs that is at hand, to begin another one with."""

from __future__ import annotations

from pathlib import Path

from img2seq.config.outputs import SequenceModel
from img2seq.errors import Img2SeqError
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import RunFolder, read_json, read_model_sections

LEAST_PHOTOGRAPHS = 1000  # of a captioner that is worth beginning with


def known_captioner(folder: Path, n_images: int) -> tuple[Path, int] | None:
    """Return the run in a folder of runs that was trained on the most photographs, and how many; None if no run has many more than `n_images`."""
    known = []
    for config in folder.glob("*/config.yaml"):
        run = RunFolder(config.parent)
        try:
            sections = read_model_sections(run)
            n_trained = len(read_json(run.split)["train"])
        except (Img2SeqError, KeyError, TypeError):
            continue  # an export, which does not say, or what is no run
        is_ours = len(sections.inputs) == 1 and all(
            isinstance(output.model, SequenceModel) for output in sections.outputs
        )
        if is_ours and all_checkpoints(run.checkpoints) and n_trained >= max(LEAST_PHOTOGRAPHS, 3 * n_images):
            known.append((n_trained, run.path))
    n_trained, path = max(known, default=(0, None))
    return None if path is None else (path, n_trained)
