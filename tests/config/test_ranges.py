"""Every field of the configuration at every odd number: accepted, or one short error that names the field and its range."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from conftest import minimal_config, write_yaml
from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.config.section import Section
from img2seq.errors import ConfigError

ODD = [".nan", ".inf", "-.inf", "0", "0.0", "-0.0", "-1", "-0.5", "1e-40", "1e-400", "0.5", "1e9", "1000000000", "1e38", "1e400", "-1e400"]  # fmt: skip
ODD += ["10000000000000000000000", "9" * 299, "9" * 400, "-" + "9" * 299, "true", "~", "''", "[]", "{}", "[.nan]", "[0]", "[-1]", "[1e400, 1]"]  # fmt: skip
ENTRIES = {"inputs": "inputs.photo", "outputs": "outputs.captions", "globals.phases": "globals.phases.first"}
TOO_FAR = [".nan", ".inf", "-.inf", "1e30", "-1e30", "9" * 30, "-" + "9" * 30]


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yield the types that a field may have."""
    if get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from parts_of(inner)
    elif get_origin(annotation) is Annotated:
        yield from parts_of(get_args(annotation)[0])
    else:
        yield annotation


def fields(section: type[Section], path: str = "") -> Iterator[tuple[str, list[Any], Any]]:
    """Yield (path in overrides, types, field) of every field below a section."""
    for name, field in section.model_fields.items():
        place = f"{path}.{field.alias or name}".lstrip(".")
        kinds = list(parts_of(field.annotation))
        inner = [t for kind in kinds for t in (kind, *get_args(kind)) if isinstance(t, type) and issubclass(t, Section)]
        if inner:
            yield from fields(inner[0], ENTRIES.get(place, place))
        else:
            yield place, kinds, field


ALL = {path: (kinds, field) for path, kinds, field in fields(Experiment)}
NUMERIC = [
    path
    for path, (kinds, field) in ALL.items()
    if any(kind in (int, float) or kind in (list[int], list[float]) for kind in kinds) and not field.json_schema_extra
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = minimal_config()
    config["globals"]["phases"] = [{"name": "first", "n_epochs": 1}]
    return write_yaml(tmp_path_factory.mktemp("ranges") / "experiment.yaml", config)


def test_the_walk_sees_every_section() -> None:
    assert len(ALL) > 90
    assert len(NUMERIC) > 40
    assert {path.split(".")[0] for path in ALL} == {"globals", "inputs", "fusion", "outputs"}
    assert "outputs.captions.model_config.model_init_config.num_heads" in NUMERIC


def refusal(experiment: Path, path: str, value: str) -> str | None:
    """Return the error that a value is answered with, None where it is accepted."""
    try:
        load_config(experiment, f"{path}={value}")
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", ALL)
def test_an_odd_value_is_accepted_or_one_short_error_with_its_field(path: str, experiment: Path) -> None:
    for value in ODD:
        error = refusal(experiment, path, value)
        if error is not None:
            assert len(error.splitlines()) <= (2 if value[0:1] == "[" else 1), error  # one for each value of a list
            assert len(error) < 700, error
            assert path.rpartition(".")[2].removeprefix("input_").removeprefix("output_") in error, error


@pytest.mark.parametrize("path", NUMERIC)
def test_every_number_has_a_range_at_both_ends(path: str, experiment: Path) -> None:
    is_list = not any(kind in (int, float) for kind in ALL[path][0])
    for value in TOO_FAR:
        written = f"[{value}]" if is_list else value
        if path.endswith("_normalization_values"):
            written = f"[{value}, {value}, {value}]"
        error = refusal(experiment, path, written)
        assert error is not None, (path, written)
        if value[-1] == "9":
            assert any(word in error for word in (" to ", "above ", "or more, below")), error


def test_a_list_of_many_wrong_values_is_a_short_error(experiment: Path) -> None:
    error = refusal(experiment, "globals.training_control.weighted_sampling_columns", f"[{'1, ' * 1000}1]")
    assert error is not None
    assert len(error.splitlines()) == 31
    assert "and 971 more" in error


def test_a_range_names_both_ends(experiment: Path) -> None:
    for path, value, words in (
        ("globals.basic_experiment.n_epochs", "0", "1 to 1000000000000"),
        ("globals.basic_experiment.batch_size", "0", "1 to 1000000"),
        ("globals.optimization.lr", "0", "above 0, at most 1000"),
        ("globals.optimization.lr", "1e400", "above 0, at most 1000"),
        ("globals.lr_schedule.warmup_steps", "-1", "0 to 1000000000000"),
        ("outputs.captions.model_config.model_init_config.dim_feedforward", "0", "1 to 1048576"),
        ("inputs.photo.input_type_info.size", "[0]", "1 to 4096"),
    ):
        error = refusal(experiment, path, value)
        assert error is not None
        assert words in error
