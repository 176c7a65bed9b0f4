"""How captions are searched for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from img2seq.config.outputs import SamplingConfig
from img2seq.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Decoding:
    """How captions are searched for. Every field but `method` and `max_length` is off at its default.

    Attributes:
        method: greedy (the likeliest token each time), beam, or sample.
        max_length: most tokens of a caption, a given beginning included, the end token not.
        min_length: fewest tokens before the end token may come.
        beam_size: beams of an image.
        beam_groups: groups the beams are divided into for diverse beam search (Vijayakumar 2018).
        diversity: taken from a token's log-probability for each earlier group that chose it at this step.
        length_penalty: a caption's score is its log-probability / length ** length_penalty.
        n_best: captions to return for each image; samples drawn, where the method is sample.
        temperature: divides the logits of samples.
        top_k: sample from the k likeliest tokens; 0 is off.
        top_p: sample from the likeliest tokens that together hold this probability; 1 is off.
        tau: sample from the most typical tokens that together hold this probability (Meister 2022); 1 is off.
        repetition_penalty: makes tokens in the window less likely (Keskar 2019); 1 is off.
        repetition_penalty_max_window: last tokens that count for it.
        frequency_penalty: taken from a token's logit for each time it stands in the window.
        frequency_penalty_max_window: last tokens that count for it.
        no_repeat_ngram: no sequence of this many tokens comes twice; 0 is off.
        seed: of the samples: an image's samples depend on it and on the image's name alone.
    """

    method: Literal["greedy", "beam", "sample"] = "beam"
    max_length: int = 64
    min_length: int = 0
    beam_size: int = 5
    beam_groups: int = 1
    diversity: float = 0.0
    length_penalty: float = 0.7
    n_best: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    tau: float = 1.0
    repetition_penalty: float = 1.0
    repetition_penalty_max_window: int = 64
    frequency_penalty: float = 0.0
    frequency_penalty_max_window: int = 128
    no_repeat_ngram: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for a value out of range."""
        checks = {
            "method": (self.method in ("greedy", "beam", "sample"), "greedy, beam or sample"),
            "max_length": (self.max_length >= 1, "1 or more"),
            "min_length": (0 <= self.min_length <= self.max_length, "0 to max_length"),
            "beam_size": (self.beam_size >= 1, "1 or more"),
            "beam_groups": (
                1 <= self.beam_groups <= self.beam_size and self.beam_size % self.beam_groups == 0,
                "a divisor of beam_size",
            ),
            "diversity": (self.diversity >= 0, "0 or more"),
            "n_best": (
                self.n_best >= 1 and (self.method == "sample" or self.n_best <= self.n_rows),
                "1 to the number of beams (1 for greedy)",
            ),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "tau": (0 < self.tau <= 1, "above 0, at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "repetition_penalty_max_window": (self.repetition_penalty_max_window >= 1, "1 or more"),
            "frequency_penalty": (self.frequency_penalty >= 0, "0 or more"),
            "frequency_penalty_max_window": (self.frequency_penalty_max_window >= 1, "1 or more"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, "0 or more"),
        }
        for name, (right, expected) in checks.items():
            if not right:
                raise ConfigError(f"{name}: expected {expected}, found {getattr(self, name)!r}")

    @property
    def n_rows(self) -> int:
        """Return how many captions of an image are built side by side."""
        return {"greedy": 1, "beam": self.beam_size, "sample": self.n_best}[self.method]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Decoding:
        """Return settings from names and values. Raises ConfigError for an unknown name, with the nearest one."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"decoding: unknown setting {name!r}.{did_you_mean(name, known)}")
        return cls(**values)

    @classmethod
    def sampling(cls, config: SamplingConfig, *, seed: int) -> Decoding:
        """Return the sampling that a configuration's `sampling_config` asks for."""
        names = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in config.model_dump().items() if name in names}
        return cls(method="sample", max_length=config.generated_sequence_length, seed=seed, **chosen)
