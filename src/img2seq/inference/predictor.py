"""From pictures to captions: encode, search, text. Everything that captions an image does it here.

Samples during training, evaluation, `img2seq caption` and the Python API differ in where their pixels or features come from
and in what they do with the captions, in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec, Pixels
from img2seq.data.tokenizer import Tokenizer
from img2seq.errors import DataError, ModelError, shown
from img2seq.generation.search import Hypothesis
from img2seq.generation.side_by_side import search_side_by_side
from img2seq.generation.step import Steps


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


class CaptioningModel(Protocol):
    """What answers for pictures: a model in torch, an export in ONNX Runtime, several that are averaged."""

    def steps(self, *, pixels: Mapping[str, Any], features: Mapping[str, Any], n_images: int) -> Steps:
        """Encode images, and return what gives the step of a part of them."""

    @property
    def threads(self) -> int:
        """Return how many parts of a batch may be searched side by side."""

    def prepare_for_many(self) -> bool:
        """Take a few seconds to become faster, where that is possible; return whether it is."""

    def prepare_decoder(self) -> bool:
        """Take a fraction of a second to decode faster, where that is possible; return whether it is."""

    def leave_a_core(self) -> None:
        """Compute on one core fewer, from now on: a server's event loop and the pictures that it decodes need one."""


class Predictor:
    """Captions images with a model.

    Args:
        model: the model.
        tokenizer: the one it was trained with.
        specs: how pictures become pixels, by input name.
    """

    def __init__(self, model: CaptioningModel, tokenizer: Tokenizer, specs: Mapping[str, ImageSpec]):
        self.model, self.tokenizer, self.specs = model, tokenizer, specs

    def captions(
        self,
        decoding: Decoding,
        *,
        names: Sequence[str],
        pixels: Mapping[str, Any] | None = None,
        features: Mapping[str, Any] | None = None,
        beginnings: Sequence[Sequence[int]] | None = None,
    ) -> list[Caption]:
        """Return the caption of each of a batch's images.

        Args:
            decoding: how to search.
            names: of the images: what makes their samples differ.
            pixels: by input name, (B, C, H, W) uint8, of numpy or torch.
            features: by input name, (B, P, C) of a frozen encoder, in place of its pixels.
            beginnings: tokens that each image's caption begins with.

        Raises:
            ConfigError: if a beginning leaves no room for another token.
            ModelError: if the model gives no caption a probability.
        """
        steps = self.model.steps(pixels=pixels or {}, features=features or {}, n_images=len(names))
        return self.search(steps, decoding, names=names, beginnings=beginnings)

    def search(
        self, steps: Steps, decoding: Decoding, *, names: Sequence[str], beginnings: Sequence[Sequence[int]] | None
    ) -> list[Caption]:
        """Return the caption of each image that `steps` knows: what is encoded once may be searched several times. See `captions`."""
        special, threads = self.tokenizer.special, self.model.threads
        found = search_side_by_side(steps, decoding, special, names=names, beginnings=beginnings, threads=threads)
        for name, hypotheses in zip(names, found, strict=True):
            if not hypotheses or not all(math.isfinite(one.log_probability) for one in hypotheses):
                raise ModelError(f"{shown(name)}: the model gives no caption a probability: its numbers are not finite")
        return [self._caption(hypotheses) for hypotheses in found]

    def pixel_batch(self, input_name: str, pictures: Sequence[Pixels]) -> Pixels:
        """Return (B, C, H, W) of what the image door gives: the middle, where a margin is kept for random crops."""
        spec = self.specs[input_name]
        cut = [_middle(picture, spec.height, spec.width) for picture in pictures]
        return np.stack(cut).transpose(0, 3, 1, 2)

    def beginning_tokens(self, text: str) -> list[int]:
        """Return the tokens of a caption's beginning. Raises DataError for words that the model does not know."""
        unknown_token = self.tokenizer.special.unknown
        tokens = self.tokenizer.encode(text) if text else []
        if unknown_token in tokens:
            unknown = [word for word in text.split() if unknown_token in self.tokenizer.encode(word)]
            raise DataError(f"beginning: the model does not know {', '.join(map(repr, unknown))}")
        return tokens

    def _caption(self, hypotheses: Sequence[Hypothesis]) -> Caption:
        best, *others = hypotheses
        numbers = [*best.tokens, self.tokenizer.special.end] if best.ended else best.tokens
        return Caption(
            text=self.tokenizer.decode(best.tokens),
            log_probability=best.log_probability,
            tokens=tuple(self.tokenizer.tokens[number] for number in numbers),
            token_log_probabilities=tuple(best.log_probabilities),
            alternatives=tuple(self._caption([other]) for other in others),
        )


def _middle(pixels: Pixels, height: int, width: int) -> Pixels:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
