"""Weights that training starts from: those of another run, checkpoint or file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from img2seq.config.inputs import ImageModel
from img2seq.errors import ModelError
from img2seq.model.caption_model import CaptionModel
from img2seq.model.encoder import CreateBackbone, create_backbone
from img2seq.model.foreign_weights import read_any_shapes, read_any_tensors
from img2seq.model.pretrained import from_file, from_hub
from img2seq.model.weights import check_shapes, shapes_of
from img2seq.run.checkpoint import Checkpoint, best, verify
from img2seq.run.folder import RunFolder

RANDOM = "random"  # as `pretrained_weights`: none are meant


def load_weights_from(model: CaptionModel, source: str, *, strict: bool, say: Callable[[str], None]) -> None:
    """Load the weights of another run, checkpoint or file into the model."""
    path = weights_file(source)
    expected, found = shapes_of(model), read_any_shapes(path)
    if strict:
        check_shapes(expected, found, path)
        model.load_state_dict(read_any_tensors(path))
        return
    fitting = [name for name in found if found[name] == expected.get(name)]
    if not fitting:
        raise ModelError(f"{path}: none of its {len(found)} tensors fits the model")
    model.load_state_dict(read_any_tensors(path, fitting), strict=False)
    left = [name for name in expected if name not in fitting]
    say(
        f"{path}: {len(fitting)} tensors taken, {len(left)} of the model keep their initial values: {', '.join(left[:5])} ..."
    )


def weights_file(source: str) -> Path:
    """Return the file of weights of another run (its best checkpoint's), of a checkpoint, or the file itself.

    Raises:
        ModelError: if there is none.
        RunError: if the checkpoint is damaged.
    """
    path = Path(source)
    if (path / "config.yaml").is_file():
        path = best(RunFolder(path).checkpoints).path
    if path.is_dir():
        verify(Checkpoint(path))
        path = path / "weights.safetensors"
    if not path.is_file():
        raise ModelError(
            f"pretrained_checkpoint: {source}: expected a run, a checkpoint folder or a .safetensors file, found nothing"
        )
    return path


def pretrained(options: ImageModel) -> CreateBackbone:
    """Return what creates a new run's encoder, from pretrained weights where that is asked for."""
    if options.pretrained_weights not in (None, RANDOM):
        return from_file(options.pretrained_weights)
    return from_hub if options.pretrained_model and options.pretrained_weights is None else create_backbone
