"""Decoding settings: each value out of range is one error with the field, the range and what was found, from every door."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from conftest import minimal_config, write_yaml
from img2seq.cli import main as cli
from img2seq.config.decoding import Decoding
from img2seq.config.load import load_config
from img2seq.config.outputs import SamplingConfig
from img2seq.data.tokenizer import BOS, EOS, MASK, PAD, SPECIAL_TOKENS, UNK, Tokenizer
from img2seq.errors import ConfigError
from img2seq.generation.model_step import ModelStep
from img2seq.generation.search import search
from img2seq.model.decoder import Decoder
from img2seq.training.samples import sampling

# (type, lowest, highest, default): written here again, so that a changed range is noticed.
RANGES: dict[str, tuple[type, float, float, float]] = {
    "max_length": (int, 1, 100_000, 64),
    "min_length": (int, 0, 100_000, 0),
    "beam_size": (int, 1, 1000, 5),
    "beam_groups": (int, 1, 1000, 1),
    "diversity": (float, 0, 100, 0.0),
    "length_penalty": (float, -10, 10, 0.7),
    "n_best": (int, 1, 4096, 1),
    "temperature": (float, 0.01, 100, 1.0),
    "top_k": (int, 0, 1_000_000, 0),
    "top_p": (float, 0.00011, 1, 1.0),  # above 0.0001
    "tau": (float, 0.00011, 1, 1.0),
    "repetition_penalty": (float, 0.01, 100, 1.0),
    "repetition_penalty_max_window": (int, 1, 100_000, 64),
    "frequency_penalty": (float, 0, 100, 0.0),
    "frequency_penalty_max_window": (int, 1, 100_000, 128),
    "no_repeat_ngram": (int, 0, 100_000, 0),
    "seed": (int, 0, 2**63 - 1, 0),
}
# What else has to be given for a value within the range of its own field.
COMPANIONS: dict[str, dict[str, Any]] = {
    "min_length": {"max_length": 100_000},
    "beam_groups": {"beam_size": 1000},
    "n_best": {"method": "sample"},
    **{name: {"method": "sample"} for name in ("temperature", "top_k", "top_p", "tau")},
}
INFINITY = float("inf")
ODD_NUMBERS = [math.nan, INFINITY, -INFINITY, 0, -1, 1e-40, 5e-324, -1e-40, 0.5, 1.5, 1e9, 1e40, -1e9, 2**63, 10**30]
ODD_OBJECTS = [True, False, None, "five", "5", "", "x" * 5000, [5], (5,), {"a": 1}, 1j, b"5", 10**5000]
# Text on the command line and in an override, and the number that it stands for.
ODD_TEXTS = ["nan", "inf", "-inf", ".nan", "-.inf", "-1", "1e-40", "-1e-40", "1e9", "1e999", "9" * 400, "five", "true", "null", "", "0x10", "[1]"]  # fmt: skip
IN_YAML = [field for field in RANGES if field in SamplingConfig.model_fields] + ["generated_sequence_length"]


def is_accepted(field: str, value: object) -> bool:
    kind, lowest, highest, _ = RANGES["max_length" if field == "generated_sequence_length" else field]
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return False
    return lowest <= value <= highest


def assert_names(message: str, field: str) -> None:
    _, lowest, highest, _ = RANGES["max_length" if field == "generated_sequence_length" else field]
    span = "above 0.0001, at most 1" if field in ("top_p", "tau") else f"{lowest} to {highest}"
    assert f"{field}:" in message.replace("-", "_"), message
    assert span in message, message
    assert "expected" in message, message
    assert "found" in message, message
    assert len(message) < 400, "what was found is not printed whole"
    assert len(message.strip().splitlines()) == 1
    assert "Traceback" not in message


def test_every_field_is_in_the_table_with_its_default() -> None:
    assert {**{name: default for name, (*_, default) in RANGES.items()}, "method": "beam"} == asdict(Decoding())


@pytest.mark.parametrize("field", RANGES)
def test_python_refuses_odd_values(field: str) -> None:
    others = COMPANIONS.get(field, {})
    for value in [*ODD_NUMBERS, *ODD_OBJECTS]:
        if is_accepted(field, value):
            assert getattr(Decoding.of({**others, field: value}), field) == value
            continue
        values: dict[str, Any] = {**others, field: value}
        for make in (partial(Decoding.of, values), partial(Decoding, **values), partial(replace, Decoding(), **values)):
            with pytest.raises(ConfigError) as caught:
                make()
            assert_names(str(caught.value), field)


@pytest.mark.parametrize("field", RANGES)
def test_the_command_line_refuses_odd_values(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    flag = f"--{field.replace('_', '-')}"
    kind = RANGES[field][0]
    for text in [*ODD_TEXTS, "0.5" if kind is int else "1e9", "5.0" if kind is int else "-5.0"]:
        for arguments in ([flag, text], [f"{flag}={text}"]):
            for verb in ("caption", "evaluate"):
                code = cli.run([verb, "no-run", *(["photo.jpg"] if verb == "caption" else []), *arguments])
                message = capsys.readouterr().err
                if is_accepted(field, _number(text)):
                    assert "expected a run folder" in message
                else:
                    assert code == 2
                    assert_names(message, field)


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@pytest.mark.parametrize("field", IN_YAML)
def test_yaml_refuses_odd_values(field: str, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "experiment.yaml", minimal_config())
    for text in [*ODD_TEXTS, "0", "0.5", "5.0", "'5'"]:
        override = f"outputs.captions.sampling_config.{field}={text}"
        if is_accepted(field, _number(text)):
            load_config(path, override)
            continue
        with pytest.raises(ConfigError) as caught:
            load_config(path, override)
        assert_names(str(caught.value), field)


@pytest.mark.parametrize("field", [name for name, (kind, *_) in RANGES.items() if kind is int])
def test_a_whole_number_is_not_a_fraction_nor_text(field: str) -> None:
    for value in (2.0, 2.5, "2", np.float64(2)):
        with pytest.raises(ConfigError, match=rf"{field}: expected a whole number, \d+ to \d+; found"):
            Decoding.of({field: value})


def test_numbers_of_numpy_are_numbers() -> None:
    assert type(Decoding.of({"beam_size": np.int64(3)}).beam_size) is int
    assert Decoding.of({"temperature": np.float32(0.5)}).temperature == 0.5


def test_the_range_and_what_was_found_are_named() -> None:
    for values, message in (
        ({"beam_size": 20000}, "beam_size: expected 1 to 1000; found 20000"),
        ({"temperature": 1e-40}, "temperature: expected 0.01 to 100; found 1e-40"),
        ({"temperature": math.nan}, "temperature: expected a number, 0.01 to 100; found nan"),
        ({"top_p": 1.5}, "top_p: expected above 0.0001, at most 1; found 1.5"),
        ({"method": "beams"}, "method: expected greedy, beam or sample; found 'beams'. Did you mean 'beam'?"),
        ({"min_length": 65}, "min_length: expected 0 to max_length (64); found 65"),
        ({"n_best": 6}, "n_best: expected 1 to beam_size (5); found 6"),
    ):
        with pytest.raises(ConfigError) as caught:
            Decoding.of(values)
        assert str(caught.value) == message


@pytest.mark.parametrize("name", ["beam_sise", "", "x" * 5000, "__class__", "sampling", "n_rows"])
def test_an_unknown_setting_is_one_error(name: str) -> None:
    values: dict[str, Any] = {name: 1}
    for make in (partial(Decoding.of, values), partial(Decoding, **values)):
        with pytest.raises(ConfigError, match="unknown setting") as caught:
            make()
        assert len(str(caught.value)) < 400


def test_settings_have_names() -> None:
    make: Any = Decoding
    for call in (partial(make, "beam"), partial(make, *range(40)), partial(make.of, {1: 2})):
        with pytest.raises(ConfigError, match="decoding: "):
            call()


def test_a_sampling_config_becomes_these_settings_and_accepts_the_same_range() -> None:
    shared = [name for name in SamplingConfig.model_fields if name in RANGES]
    assert len(shared) == 9
    config = SamplingConfig(generated_sequence_length=9, temperature=0.3, no_repeat_ngram=3)
    settings = sampling(config, seed=4)
    assert (settings.method, settings.max_length, settings.seed, settings.temperature) == ("sample", 9, 4, 0.3)
    assert settings.no_repeat_ngram == 3
    assert (settings.top_k, settings.top_p, settings.tau) == (20, 0.9, 0.95)  # not the defaults of Decoding
    ours, theirs = TypeAdapter(Decoding).json_schema()["properties"], SamplingConfig.model_json_schema()["properties"]
    for name in shared:
        assert {**ours[name], "default": None} == {**theirs[name], "default": None}


def test_a_server_can_take_the_settings_as_a_request() -> None:
    adapter = TypeAdapter(Decoding)
    properties = adapter.json_schema()["properties"]
    assert properties["beam_size"] | {"description": ""} == {
        "type": "integer", "minimum": 1, "maximum": 1000, "default": 5, "title": "Beam Size", "description": "",
    }  # fmt: skip
    assert all(properties[name]["description"] for name in (*RANGES, "method"))
    assert (
        adapter.validate_json('{"beam_size": 3}') == adapter.validate_python({"beam_size": 3}) == Decoding(beam_size=3)
    )
    for wrong in ({"beam_size": 0}, {"beam_sise": 3}, {"beam_size": "3"}, {"n_best": 9}):
        with pytest.raises(ValidationError):  # what a web framework turns into its own answer
            adapter.validate_python(wrong)


def settings_at_the_limits() -> list[Decoding]:
    found = [Decoding()]
    for name, (kind, lowest, highest, _) in RANGES.items():
        for value in (kind(lowest), kind(highest)):
            others = COMPANIONS.get(name, {})
            for method in ("greedy", "beam", "sample"):
                if name != "n_best" or method == "sample":
                    found.append(Decoding.of({"method": method, **others, name: value}))
    return found


@pytest.mark.parametrize("settings", settings_at_the_limits(), ids=str)
def test_what_is_accepted_gives_words_only(settings: Decoding) -> None:
    """At each end of each range, even with logits of +-1000."""
    torch.manual_seed(0)
    decoder = Decoder(
        vocabulary=12, width=16, n_layers=1, n_heads=4, feedforward=32, dropout=0.0, position_dropout=0.0,
        position="encode", n_positions=8, has_memory=False,
    ).eval()  # fmt: skip
    special = Tokenizer(SPECIAL_TOKENS, split_on=" ").special
    if settings.min_length >= 8:  # what the model cannot do is no range of its own
        with pytest.raises(ConfigError, match=r"min_length: expected 0 to 7, .* found 100000"):
            search(ModelStep(decoder, None, n_images=1), settings, special)
        return
    for scale in (1.0, 300.0):
        decoder.embedding.weight.data *= scale
        for hypothesis in search(ModelStep(decoder, None, n_images=1), settings, special)[0]:
            assert not {BOS, UNK, MASK, PAD, EOS} & set(hypothesis.tokens)
            assert math.isfinite(hypothesis.score)
            assert settings.min_length == 0 or hypothesis.tokens
