"""How captions are searched for: each setting once, with its type, default, range and meaning.

From here come the flags of `caption` and `evaluate`, the fields of `sampling_config`, the keywords of `Captioner.caption`
and, because this is a pydantic model, the request and the documentation of a web server.

Limits: lengths and windows end above the length of any caption, beams and samples at what fits into memory, penalties where
scores are still finite. Lower temperature, top_p and tau leave the likeliest token only, and are 0 in single precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs, ErrorDetails

from img2seq.config.ranges import choices, limits, range_in_words
from img2seq.errors import ConfigError, did_you_mean, shown


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    # Strict field by field: a strict dataclass would refuse the mapping that a web framework makes of JSON.
    return Field(default, description=meaning, strict=True if limits else None, **limits)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Decoding:
    """How captions are searched for.

    A wrong value raises ConfigError, and pydantic's ValidationError where pydantic reads a mapping or JSON.
    """

    # One line a setting reads like the table it is.
    # fmt: off
    method: Literal["greedy", "beam", "sample"] = _setting("beam", "greedy takes the likeliest token each time, beam searches, sample draws.")
    max_length: int = _setting(64, "Most tokens of a caption, a given beginning included, the end token not. With a run, its own max_length unless that is average.", ge=1, le=100_000)
    min_length: int = _setting(0, "Fewest tokens before a caption may end.", ge=0, le=100_000)
    beam_size: int = _setting(5, "Beams of an image.", ge=1, le=1000)
    beam_groups: int = _setting(1, "Groups the beams are divided into for diverse beam search (Vijayakumar 2018); divides beam_size.", ge=1, le=1000)
    diversity: float = _setting(0.0, "Taken from a token's log-probability for each earlier group that chose it at this step; 0 is off.", ge=0, le=100)
    length_penalty: float = _setting(0.7, "A caption's score is its log-probability / length ** length_penalty; 0 is off.", ge=-10, le=10)
    n_best: int = _setting(1, "Captions to return for each image: at most 1 for greedy, beam_size for beam.", ge=1, le=4096)
    temperature: float = _setting(1.0, "Divides the logits of samples: below 1 sharper, above 1 flatter.", ge=0.01, le=100)
    top_k: int = _setting(0, "Sample only from the k likeliest tokens; 0 is off.", ge=0, le=1_000_000)
    top_p: float = _setting(1.0, "Sample only from the likeliest tokens that together hold this probability (nucleus); 1 is off.", gt=0.0001, le=1)
    tau: float = _setting(1.0, "Sample only from the most typical tokens that together hold this probability (locally typical, Meister 2022); 1 is off.", gt=0.0001, le=1)
    repetition_penalty: float = _setting(1.0, "Divides the odds of tokens that stand in the window already (Keskar 2019); 1 is off.", ge=0.01, le=100)
    repetition_penalty_max_window: int = _setting(64, "Last tokens that count for repetition_penalty.", ge=1, le=100_000)
    frequency_penalty: float = _setting(0.0, "Taken from a token's logit for each time it stands in the window; 0 is off.", ge=0, le=100)
    frequency_penalty_max_window: int = _setting(128, "Last tokens that count for frequency_penalty.", ge=1, le=100_000)
    no_repeat_ngram: int = _setting(0, "No sequence of this many tokens comes twice; 0 is off.", ge=0, le=100_000)
    seed: int = _setting(0, "Of the samples: an image's samples depend on it and on the image's name alone.", ge=0, le=2**63 - 1)
    # fmt: on

    def __post_init__(self) -> None:
        """Check the settings that depend on each other."""
        if self.min_length > self.max_length:
            raise ValueError(f"min_length: expected 0 to max_length ({self.max_length}); found {self.min_length}")
        if self.beam_size % self.beam_groups:
            raise ValueError(
                f"beam_groups: expected a divisor of beam_size ({self.beam_size}); found {self.beam_groups}"
            )
        if self.n_best > self.n_rows:
            most = "1 for greedy" if self.method == "greedy" else f"1 to beam_size ({self.beam_size})"
            raise ValueError(f"n_best: expected {most}; found {self.n_best}")

    @property
    def n_rows(self) -> int:
        """Return how many captions of an image are built side by side."""
        return {"greedy": 1, "beam": self.beam_size, "sample": self.n_best}[self.method]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Decoding:
        """Return settings from names and values. Raises ConfigError for an unknown name, with the nearest one."""
        return cls(**{str(name): value for name, value in values.items()})

    @classmethod
    def check_defaults(cls, values: Mapping[str, Any]) -> None:
        """Raise ConfigError for defaults that a run may not have: wrong ones, and n_best, which a command decides."""
        if cls.of(values) and "n_best" in values:
            raise ConfigError("n_best: is no default of a run: a command decides it")

    @model_validator(mode="wrap")
    @classmethod
    def _raise_config_error(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, ArgsKwargs):
            return check(values)
        if values.args:
            raise ConfigError(f"decoding: expected names, such as beam_size=5; found {shown(values.args)}")
        # A sweep over np.arange gives numpy's numbers, which pydantic does not take for Python's.
        plain = {
            name: value.item() if isinstance(value, Number) and hasattr(value, "item") else value
            for name, value in (values.kwargs or {}).items()
        }
        try:
            return check(ArgsKwargs((), plain))
        except ValidationError as error:
            raise ConfigError("\n".join(dict.fromkeys(map(_explain, error.errors())))) from None


SETTINGS: dict[str, FieldInfo] = Decoding.__pydantic_fields__  # type: ignore[attr-defined]


def with_default(name: str, default: Any, meaning: str | None = None) -> Any:
    """Return the field of a setting with another default, or another meaning, for a section of the configuration."""
    field = SETTINGS[name]
    return Field(default, description=meaning or field.description, **limits(field))


def _explain(details: ErrorDetails) -> str:
    """Return one line: setting: what was expected; what was found."""
    if details["type"] == "value_error":  # of __post_init__
        return str(details["ctx"]["error"])
    name, found = str(details["loc"][0]), shown(details["input"])
    if name not in SETTINGS:
        return f"decoding: unknown setting {shown(name)}.{did_you_mean(name, SETTINGS)}"
    field = SETTINGS[name]
    expected = range_in_words(field)
    if choices(field):
        return f"{name}: expected {expected}; found {found}.{did_you_mean(str(details['input']), choices(field))}"
    if details["type"] not in ("greater_than", "greater_than_equal", "less_than_equal"):
        expected = f"a {'whole number' if field.annotation is int else 'number'}, {expected}"
    return f"{name}: expected {expected}; found {found}"
