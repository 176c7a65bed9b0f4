"""What is captioned with, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.data.image import ImageSpec
from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import ModelError
from img2seq.inference.predictor import CaptioningModel

if TYPE_CHECKING:
    from img2seq.build.trained import TrainedRun


@dataclass(frozen=True)
class Loaded:
    """A run or an export, ready to caption.

    Attributes:
        path: its folder.
        output_name: what its configuration calls the caption.
        step: of training.
        n_parameters: numbers that were trained or taken over.
        decoding_defaults: its own settings, in place of those of `Decoding`.
        tokenizer: the one it was trained with.
        specs: how pictures become pixels, by input name.
        model: what answers.
        trained: the model in torch, of a run.
        precision: of the weights.
        members: the models that are averaged, of an ensemble.
        mirror: whether they see the mirror image of a picture, too.
    """

    path: Path
    output_name: str
    step: int
    n_parameters: int
    decoding_defaults: Mapping[str, Any]
    tokenizer: Tokenizer
    specs: Mapping[str, ImageSpec]
    model: CaptioningModel
    trained: TrainedRun | None = None
    precision: str = "fp32"
    members: tuple[Loaded, ...] = ()
    mirror: bool = False

    @property
    def image_input(self) -> tuple[str, ImageSpec]:
        """Return the name of its image input, and how pictures become its pixels. Raises ModelError for none and for several."""
        if len(self.specs) != 1:
            raise ModelError(f"{self.path}: captioning needs a run with one image input, found {len(self.specs)}")
        return next(iter(self.specs.items()))
