"""Trained runs behind a worker: what a request's pictures and settings become, and the batch that captions them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec, Pixels, from_any
from img2seq.errors import ConfigError, DataError, did_you_mean, shown
from img2seq.run.hub import is_on_hub
from img2seq.serving.limits import Refusal, check_cost
from img2seq.serving.worker import Job, Models

if TYPE_CHECKING:
    from img2seq.inference.captioner import Captioner
    from img2seq.inference.predictor import Caption


@dataclass(frozen=True)
class Picture:
    """A picture as the model takes it.

    Attributes:
        pixels: as `img2seq caption` makes them.
        name: that its samples depend on: its place in the request, so that the same request has the same answer.
        beginning: tokens that its caption begins with.
    """

    pixels: Pixels
    name: str
    beginning: Sequence[int]


class ServedRun:
    """A run under the name that requests give."""

    def __init__(self, name: str, captioner: Captioner):
        self.name, self.captioner = name, captioner

    @property
    def input_name(self) -> str:
        """Return what the run's configuration calls the picture."""
        return self.captioner.input_name

    @property
    def spec(self) -> ImageSpec:
        """Return how pictures become pixels."""
        return self.captioner.spec

    @cached_property
    def output_name(self) -> str:
        """Return what the run's configuration calls the caption."""
        return self.captioner.loaded.output_name

    def decoding(self, given: Mapping[str, Any]) -> Decoding:
        """Return decoding settings with the run's defaults. Raises ConfigError for those that are wrong, or too costly for a server."""
        settings = Decoding.of(self.captioner.decoding_defaults | dict(given))
        check_cost(settings)
        return settings

    def picture(self, data: bytes, name: str, beginning: str, settings: Decoding) -> Picture:
        """Decode a picture. Raises DataError if it, or the beginning, cannot be used."""
        tokens = self.captioner.predictor.beginning_tokens(beginning)
        if len(tokens) >= settings.max_length:
            raise DataError(
                f"beginning: expected fewer tokens than max_length ({settings.max_length}); found {len(tokens)}"
            )
        return Picture(from_any(data, self.spec), name, tokens)

    def describe(self) -> dict[str, Any]:
        """Return what a person who writes requests wants to know."""
        loaded, spec = self.captioner.loaded, self.spec
        return {
            "name": self.name,
            "input": {"name": self.input_name, "height": spec.height, "width": spec.width, "mode": spec.mode},
            "output": self.output_name,
            "max_length": self.captioner.decoding_defaults.get("max_length"),
            "vocabulary_size": len(loaded.tokenizer.tokens),
            "parameters": loaded.n_parameters,
            "step": loaded.step,
            "decoding_defaults": self.captioner.decoding_defaults,
            "limits": {"max_pixels": spec.max_pixels},
        }


class ServedRuns(Models):
    """Several runs, the first of which answers requests that name none."""

    def __init__(self, runs: Sequence[ServedRun]):
        self.by_name = {run.name: run for run in runs}

    @property
    def default(self) -> ServedRun:
        """Return the run that answers where no other is named."""
        return next(iter(self.by_name.values()))

    def named(self, name: str | None) -> ServedRun:
        """Return a run, or the default one. Raises Refusal if there is none of that name."""
        if not name:
            return self.default
        if name not in self.by_name:
            raise Refusal(404, f"model: there is no {shown(name)}.{did_you_mean(name, self.by_name)}")
        return self.by_name[name]

    def caption(self, jobs: Sequence[Job]) -> list[Caption]:
        """Return the caption of each job."""
        key: Any = jobs[0].key
        name, settings = key
        return self._captions(self.by_name[name], settings, [job.payload for job in jobs])

    def probe(self) -> None:
        """Caption a gray picture with each model, alone and in a batch."""
        import numpy as np

        for run in self.by_name.values():
            gray = Picture(np.full(run.spec.stored_shape, 128, dtype=np.uint8), "0", ())
            settings = run.decoding({})
            self._captions(run, settings, [gray])
            self._captions(run, settings, [gray] * 4)

    @staticmethod
    def _captions(run: ServedRun, settings: Decoding, pictures: Sequence[Picture]) -> list[Caption]:
        predictor, name = run.captioner.predictor, run.input_name
        return predictor.captions(
            settings,
            names=[picture.name for picture in pictures],
            pixels={name: predictor.pixel_batch(name, [picture.pixels for picture in pictures])},
            beginnings=[picture.beginning for picture in pictures],
        )


def loader(folders: Mapping[str, str], *, device: str, loaded: Callable[[ServedRuns], None]) -> Callable[[], Models]:
    """Return the function that loads runs: it is called in the worker's thread, so that the server answers from the first moment.

    Args:
        folders: of the runs, by name.
        device: where to compute.
        loaded: called with the runs.
    """

    def load() -> Models:
        from img2seq.inference.captioner import Captioner

        runs = ServedRuns([ServedRun(name, Captioner.load(folder, device=device)) for name, folder in folders.items()])
        for run in runs.by_name.values():
            run.captioner.leave_a_core()
            run.captioner.prepare_decoder()
        loaded(runs)
        return runs

    return load


def names_of(folders: Sequence[str]) -> dict[str, str]:
    """Return run folders by the name of each. Raises ConfigError where two have one name."""
    found: dict[str, str] = {}
    for folder in folders:
        local = folder.partition("@")[0] if is_on_hub(folder) else os.path.abspath(folder)  # noqa: PTH100
        name = os.path.basename(local)  # noqa: PTH119  (of a link its own name, not that of what it leads to)
        if name in found:
            raise ConfigError(f"expected runs whose folders have different names; found {found[name]} and {folder}")
        found[name] = folder
    return found
