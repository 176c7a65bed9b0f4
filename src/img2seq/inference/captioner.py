"""Caption images with a trained run, from Python.

>>> from img2seq import Captioner  # doctest: +SKIP
>>> Captioner.load("runs/x").caption("photo.jpg", beam_size=5)  # doctest: +SKIP
Caption(text='A dog runs on the beach .', ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from img2seq.build.trained import TrainedRun, load_run
from img2seq.config.decoding import Decoding
from img2seq.data.image import Pixels, from_any
from img2seq.errors import ModelError
from img2seq.inference.predictor import Caption, Predictor
from img2seq.model.onnx_encoder import accelerate

ImageSource = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


class Captioner:
    """A trained model that captions images. Made by `Captioner.load`."""

    def __init__(self, trained: TrainedRun, *, batch_size: int = 32):
        if len(trained.specs) != 1:
            raise ModelError(
                f"{trained.run.path}: captioning needs a run with one image input, found {len(trained.specs)}"
            )
        self.trained, self.batch_size = trained, batch_size
        self.predictor = Predictor(trained.model, trained.tokenizer, trained.specs)
        (self.input_name, self.spec), *_ = trained.specs.items()
        info, longest = trained.config.output.output_type_info, trained.facts.max_length
        self.decoding_defaults = defaults_of(info.max_length, longest)
        trained.model.decoder.lay_out_for_decoding()

    @classmethod
    def load(
        cls, run: str | PathLike[str], *, device: str = "auto", step: int | None = None, batch_size: int = 32
    ) -> Captioner:
        """Load a run's best checkpoint.

        Args:
            run: a run folder.
            device: cpu, cuda, cuda:N, mps or auto.
            step: of the checkpoint, in place of the best one.
            batch_size: images captioned together.

        Raises:
            RunError: if the run is incomplete or damaged.
        """
        return cls(load_run(str(run), device=device, step=step), batch_size=batch_size)

    def prepare_for_many(self) -> bool:
        """Take a few seconds to make encoding faster, where `img2seq[fast]` is installed; return whether it is."""
        return accelerate(self.trained.model.encoder(self.input_name))

    @overload
    def caption(self, images: ImageSource, *, beginning: str = "", **decoding: Any) -> Caption: ...

    @overload
    def caption(self, images: Sequence[ImageSource], *, beginning: str = "", **decoding: Any) -> list[Caption]: ...

    def caption(
        self, images: ImageSource | Sequence[ImageSource], *, beginning: str = "", **decoding: Any
    ) -> Caption | list[Caption]:
        """Caption one image, or each of a list.

        Args:
            images: paths, bytes of image files, PIL images, or uint8 arrays (H, W), (H, W, 3), (H, W, 4).
            beginning: what every caption begins with.
            decoding: fields of `Decoding`, such as beam_size=5, n_best=3 or method="sample". max_length is by default the run's.

        Raises:
            DataError: if an image cannot be used, or the beginning has words the model does not know.
            ConfigError: for a decoding field that is unknown or out of range.
        """
        settings = Decoding.of(self.decoding_defaults | decoding)
        if isinstance(images, list | tuple):
            return list(self._caption_many(images, settings, beginning))
        (one,) = self._caption_many([images], settings, beginning)
        return one

    def _caption_many(self, images: Sequence[Any], settings: Decoding, beginning: str) -> Iterator[Caption]:
        for start in range(0, len(images), self.batch_size):
            pixels = [from_any(image, self.spec) for image in images[start : start + self.batch_size]]
            names = [str(start + i) for i in range(len(pixels))]
            yield from self.caption_pixels(pixels, settings, beginning=beginning, names=names)

    def caption_pixels(
        self, pixels: Sequence[Pixels], decoding: Decoding, *, beginning: str = "", names: Sequence[str]
    ) -> list[Caption]:
        """Return the caption of each of a batch's images, given as the pixels that `data.image` makes of them."""
        return self.predictor.captions(
            decoding,
            names=names,
            pixels={self.input_name: self.predictor.pixel_batch(self.input_name, pixels)},
            beginnings=[self.predictor.beginning_tokens(beginning)] * len(pixels),
        )


def defaults_of(max_length: int | str, longest: int) -> dict[str, int]:
    """Return a run's own longest caption, with room for its end; nothing where max_length is an average, which many captions exceed."""
    return {} if max_length == "average" else {"max_length": longest}
