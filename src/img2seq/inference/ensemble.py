"""Several models that caption as one: the probabilities of each token are averaged. A picture's mirror image may count as a second picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from img2seq.data.image import ImageSpec
from img2seq.errors import ConfigError, ModelError
from img2seq.generation.ensemble_step import EnsembleStep
from img2seq.generation.step import Steps
from img2seq.inference.loaded import Loaded
from img2seq.inference.predictor import CaptioningModel


def ensemble(members: Sequence[Loaded], *, mirror: bool = False) -> Loaded:
    """Return one of several models; its decoding defaults are those of the first.

    Args:
        members: each with one image input. They may differ in everything but the tokenizer.
        mirror: have each see the mirror image of a picture, too.

    Raises:
        ConfigError: if there is none.
        ModelError: if two have different tokenizers, naming both, or one has not one image input.
    """
    if not members:
        raise ConfigError("run: expected one or several, found none")
    first, specs, seen = members[0], dict[str, ImageSpec](), list[_Seen]()
    for member in members:
        if member.tokenizer.digest != first.tokenizer.digest:
            raise ModelError(
                f"{first.path} and {member.path}: expected runs with the same tokenizer, since probabilities of its tokens are "
                f"averaged; found two different ones, of {len(first.tokenizer):,} and {len(member.tokenizer):,} tokens"
            )
        name, spec = member.image_input
        name = next(
            (known for known, other in specs.items() if other == spec), f"{name} {len(specs)}" if specs else name
        )
        specs[name] = spec
        seen += [_Seen(member, name, mirrored) for mirrored in ((False, True) if mirror else (False,))]
    return replace(
        first,
        n_parameters=sum(member.n_parameters for member in members),
        specs=specs,
        model=EnsembleModel(seen),
        trained=None,
        members=tuple(members),
        mirror=mirror,
    )


@dataclass(frozen=True)
class _Seen:
    """A model and what it sees: an input of the ensemble, as it is or mirrored."""

    loaded: Loaded
    input_name: str
    mirrored: bool

    def steps(self, pixels: Mapping[str, Any], n_images: int) -> Steps:
        (own_name,), values = self.loaded.specs, np.asarray(pixels[self.input_name])
        values = np.ascontiguousarray(values[..., ::-1]) if self.mirrored else values
        return self.loaded.model.steps(pixels={own_name: values}, features={}, n_images=n_images)


class EnsembleModel:
    """See `predictor.CaptioningModel`."""

    def __init__(self, seen: Sequence[_Seen]):
        self._seen = seen

    @property
    def models(self) -> list[CaptioningModel]:
        """Return the models, one that sees mirror images, too, once."""
        return list({id(one.loaded.model): one.loaded.model for one in self._seen}.values())

    @property
    def threads(self) -> int:
        """See `predictor.CaptioningModel`."""
        return min(model.threads for model in self.models)

    def steps(self, *, pixels: Mapping[str, Any], features: Mapping[str, Any], n_images: int) -> Steps:
        """See `predictor.CaptioningModel`. There are no features: each model has an encoder of its own."""
        of_each = [one.steps(pixels, n_images) for one in self._seen]
        return lambda part: EnsembleStep([steps(part) for steps in of_each])

    def prepare_for_many(self) -> bool:
        """See `predictor.CaptioningModel`."""
        done = [model.prepare_for_many() for model in self.models]  # each, whatever the others can
        return all(done)

    def prepare_decoder(self) -> bool:
        """See `predictor.CaptioningModel`."""
        done = [model.prepare_decoder() for model in self.models]
        return all(done)

    def leave_a_core(self) -> None:
        """See `predictor.CaptioningModel`."""
        for model in self.models:
            model.leave_a_core()
