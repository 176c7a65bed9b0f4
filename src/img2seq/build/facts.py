"""What the data decided and a model cannot be rebuilt without; kept in a run's facts.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from img2seq.config.inputs import ImageInput
from img2seq.data.image import ImageSpec
from img2seq.errors import RunError
from img2seq.run.folder import RunFolder, read_json, read_model_sections

MAX_POSITIONS = 1_000_000  # of a decoder; a run folder may come from anywhere


@dataclass(frozen=True)
class LanguageModelFacts:
    """What is known of a pretrained language model that is the decoder.

    Attributes:
        digest: of its files.
        rows: the number that each token of the run has there.
        config: its settings, as transformers writes them.
    """

    digest: str
    rows: list[int]
    config: dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the data decided.

    Attributes:
        max_length: most tokens of a caption, end token included.
        n_positions: places the decoder knows.
        vocabulary: tokens.
        normalization: of each input: mean and std of each channel, pixel values in 0..1.
        tokenizer_digest: of the tokenizer the model was trained with.
        preprocessing: of each input: what decides the pixels of a given file.
        language_model: the pretrained one that is the decoder, if any.
    """

    max_length: int
    n_positions: int
    vocabulary: int
    normalization: dict[str, dict[str, list[float]]]
    tokenizer_digest: str
    preprocessing: dict[str, str]
    language_model: LanguageModelFacts | None = None


def read_facts(run: RunFolder) -> Facts:
    """Return what a run's data decided. Raises RunError if the file is broken."""
    data = read_json(run.facts)
    try:
        found = data["facts"]
        if "preprocessing" not in found:  # not written by the first versions
            found["preprocessing"] = preprocessing(read_model_sections(run).inputs)
        facts = TypeAdapter(Facts).validate_json(json.dumps(found), strict=True)
    except (TypeError, KeyError, AttributeError, ValidationError) as error:
        raise RunError(f"{run.facts}: expected the facts of a run: {error}") from error
    if not 1 <= facts.n_positions <= MAX_POSITIONS:
        raise RunError(f"{run.facts}: n_positions: expected 1 to {MAX_POSITIONS:,}, found {facts.n_positions:,}")
    if set(facts.normalization) != set(facts.preprocessing) or any(
        set(values) != {"mean", "std"} for values in facts.normalization.values()
    ):
        raise RunError(
            f"{run.facts}: normalization: expected mean and std of {list(facts.preprocessing)}, found {facts.normalization}"
        )
    return facts


def image_specs(inputs: Iterable[ImageInput]) -> dict[str, ImageSpec]:
    """Return how files become pixels, by input."""
    return {entry.name: ImageSpec.of(entry.input_type_info) for entry in inputs}


def preprocessing(inputs: Iterable[ImageInput]) -> dict[str, str]:
    """Return what decides the pixels of a given file, by input."""
    return {name: spec.key for name, spec in image_specs(inputs).items()}
