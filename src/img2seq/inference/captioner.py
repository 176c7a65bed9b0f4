"""Caption images with a trained run, from Python.

>>> from img2seq import Captioner  # doctest: +SKIP
>>> Captioner.load("runs/x").caption("photo.jpg", beam_size=5)  # doctest: +SKIP
Caption(text='A dog runs on the beach .', ...)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from img2seq.build.assemble import LoadedRun, load
from img2seq.config.decoding import Decoding
from img2seq.data.image import Pixels, from_any
from img2seq.data.tokenizer import EOS, UNK
from img2seq.errors import DataError, ModelError
from img2seq.generation.search import Hypothesis, search
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate

ImageSource = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Caption:
    """A generated caption and how sure the model is of it.

    Attributes:
        text: the caption.
        log_probability: of the whole caption, in nats, its end included.
        tokens: the token strings; "<eos>" last where the caption ended by itself.
        token_log_probabilities: of each token given those before it; 0 for tokens that were given.
        alternatives: the next best captions, where more than one was asked for.
    """

    text: str
    log_probability: float
    tokens: tuple[str, ...]
    token_log_probabilities: tuple[float, ...]
    alternatives: tuple[Caption, ...] = ()

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)

    @property
    def token_probabilities(self) -> tuple[float, ...]:
        return tuple(math.exp(value) for value in self.token_log_probabilities)


class Captioner:
    """A trained model that captions images. Made by `Captioner.load`."""

    def __init__(self, loaded: LoadedRun, *, batch_size: int = 32):
        if len(loaded.specs) != 1:
            raise ModelError(
                f"{loaded.run.path}: captioning needs a run with one image input, found {len(loaded.specs)}"
            )
        self.loaded, self.batch_size = loaded, batch_size
        (self.input_name, self.spec), *_ = loaded.specs.items()
        loaded.model.decoder.lay_out_for_decoding()

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
        return cls(load(str(run), device=device, step=step), batch_size=batch_size)

    def prepare_for_many(self) -> bool:
        """Take a few seconds to make encoding faster, where `img2seq[fast]` is installed; return whether it is."""
        encoder = self.loaded.model.encoders[self.input_name]
        assert isinstance(encoder, ImageEncoder)
        return accelerate(encoder)

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
            decoding: fields of `Decoding`, such as beam_size=5, n_best=3 or method="sample".

        Raises:
            DataError: if an image cannot be used, or the beginning has words the model does not know.
            ConfigError: for a decoding field that is unknown or out of range.
        """
        settings = Decoding.of(decoding)
        if isinstance(images, list | tuple):
            return list(self.caption_many(images, settings, beginning=beginning))
        (one,) = self.caption_many([images], settings, beginning=beginning)
        return one

    def caption_many(self, images: Sequence[Any], settings: Decoding, *, beginning: str = "") -> Iterator[Caption]:
        """Yield the caption of each image, a batch at a time."""
        for start in range(0, len(images), self.batch_size):
            pixels = [from_any(image, self.spec) for image in images[start : start + self.batch_size]]
            yield from self.caption_pixels(pixels, settings, beginning=beginning, first=start)

    def caption_pixels(
        self,
        pixels: Sequence[Pixels],
        decoding: Decoding,
        *,
        beginning: str = "",
        first: int = 0,
        names: Sequence[str] | None = None,
    ) -> list[Caption]:
        """Return the caption of each of a batch's images, given as the pixels that `data.image` makes of them."""
        cut = [_middle(image, self.spec.height, self.spec.width) for image in pixels]
        batch = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2)
        return self.caption_batch(
            batch, decoding, beginning=beginning, names=names or [str(first + i) for i in range(len(pixels))]
        )

    def caption_batch(
        self, images: Tensor, decoding: Decoding, *, beginning: str = "", names: Sequence[str]
    ) -> list[Caption]:
        """Return the caption of each of a batch's images, (B, C, H, W) pixels or a frozen encoder's (B, P, C) features."""
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        tokens = tokenizer.encode(beginning) if beginning else []
        if UNK in tokens:
            unknown = [word for word in beginning.split() if UNK in tokenizer.encode(word)]
            raise DataError(f"beginning: the model does not know {', '.join(map(repr, unknown))}")
        with torch.inference_mode():
            memory = model.encode({self.input_name: images.to(model.device)})
        found = search(model.decoder, memory, decoding, beginnings=[tokens] * len(images), names=names)
        return [self._caption(hypotheses) for hypotheses in found]

    def _caption(self, hypotheses: Sequence[Hypothesis]) -> Caption:
        best, *others = hypotheses
        tokenizer = self.loaded.tokenizer
        numbers = [*best.tokens, EOS] if best.ended else best.tokens
        return Caption(
            text=tokenizer.decode(best.tokens),
            log_probability=best.log_probability,
            tokens=tuple(tokenizer.tokens[number] for number in numbers),
            token_log_probabilities=tuple(best.log_probabilities),
            alternatives=tuple(self._caption([other]) for other in others),
        )


def _middle(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the middle of pixels that are kept with a margin for random crops."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
