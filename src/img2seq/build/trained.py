"""From a run folder to what captioning needs: the model, its tokenizer, and how pictures become pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from img2seq.build.device import choose_device
from img2seq.build.facts import Facts, image_specs, preprocessing, read_facts
from img2seq.build.model import build_model
from img2seq.config.model_sections import ModelSections
from img2seq.data.image import ImageSpec
from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import RunError
from img2seq.model.caption_model import CaptionModel
from img2seq.model.weights import check_shapes, read_shapes, read_tensors, shapes_of
from img2seq.run.checkpoint import Checkpoint, best, verify
from img2seq.run.folder import RunFolder, check_signed, open_run, read_model_sections, read_tokenizer


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with all that it needs to caption images."""

    run: RunFolder
    checkpoint: Checkpoint
    config: ModelSections
    facts: Facts
    tokenizer: Tokenizer
    model: CaptionModel
    specs: Mapping[str, ImageSpec]


def load_run(path: str | Path, *, device: str = "auto", step: int | None = None) -> TrainedRun:
    """Load a run's best checkpoint, or that of a step, in evaluation mode.

    Raises:
        RunError: if the run is incomplete or damaged, or its tokenizer is not the one it was trained with.
    """
    run = open_run(path)
    check_signed(run)
    config, facts, tokenizer = read_model_sections(run), read_facts(run), read_tokenizer(run)
    if tokenizer.digest != facts.tokenizer_digest:
        raise RunError(f"{run.tokenizer}: not the tokenizer this run was trained with; restore the file")
    if (now := preprocessing(config.inputs)) != facts.preprocessing:
        raise RunError(
            f"{run.config}: images would become other pixels than in training: {facts.preprocessing}, now {now}"
        )
    if step is None:
        checkpoint = best(run.checkpoints)
    else:
        checkpoint = Checkpoint(run.checkpoints / f"step-{step:08d}")
        if not checkpoint.path.is_dir():
            raise RunError(f"{checkpoint.path}: there is no such checkpoint")
        verify(checkpoint)
    # First a model without memory: only a file that fits decides how much is allocated.
    with torch.device("meta"):
        shapes = shapes_of(build_model(config.inputs, config.output, facts))
    check_shapes(shapes, read_shapes(checkpoint.weights), checkpoint.weights)
    model = build_model(config.inputs, config.output, facts)
    model.load_state_dict(read_tensors(checkpoint.weights))
    model.to(choose_device(device)).eval()
    return TrainedRun(run, checkpoint, config, facts, tokenizer, model, image_specs(config.inputs))
