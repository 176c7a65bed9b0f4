"""Configurations (row 26 of docs/faults.md): every mistake is one error with its place and the nearest right name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, minimal_config, write_yaml
from img2seq.config.load import load_config
from img2seq.config.show import to_yaml
from img2seq.config.yaml_reader import parse_yaml, scalar
from img2seq.errors import ConfigError

# One mistake each: (override, what the message must hold besides the place).
MISTAKES = [
    ("globals.optimization.lrr=0.1", ["unknown key", "'lr'"]),
    ("globals.optimization.learning_rate=0.1", ["unknown key", "'lr'"]),
    ("globals.optimization.lr=fast", ["expected a number", "'fast'"]),
    ("globals.optimization.lr=.nan", ["finite"]),
    ("globals.optimization.lr=-1", ["greater than 0"]),
    ("globals.optimization.optimizer=adamww", ["'adamw'", "Did you mean"]),
    ("globals.basic_experiment.batch_size=1e3", ["whole number"]),
    ("globals.basic_experiment.batch_size='64'", ["whole number"]),
    ("globals.basic_experiment.memory_dataset=on", ["true or false", "'on'"]),
    ("globals.basic_experiment.valid_size=1.5", ["below 1"]),
    ("globals.training_control.mixing_alpha=0.2", ["not supported"]),
    ("globals.attribution_analysis.compute_attributions=true", ["not supported"]),
    ("globals.accelerator.num_nodes=2", ["not supported"]),
    ("globals.model.n_iter_before_swa=3 globals.model.ema_decay=0.9", ["cannot be combined"]),
    ("inputs.photo.input_info.input_type=omics", ["expected 'image'", "omics"]),
    ("inputs.photo.input_type_info.size=[64, 64, 3]", ["at most 2"]),
    ("inputs.photo.input_type_info.mean_normalization_values=[0.5]", ["expected 3 values"]),
    ("inputs.photo.model_config.cache_features=true", ["freeze_pretrained_model"]),
    ("fusion.model_type=mlp-residual", ["pass-through", "Other fusions"]),
    ("outputs.captions.model_config.model_type=gpt2", ["'sequence'", "Other decoders"]),
    ("fusion.model_config.n_layers=2", ["not supported"]),
    ("outputs.captions.output_type_info.tokenizer=spacy", ["'bpe'"]),
    ("outputs.captions.output_type_info.max_length=longest", ["'max'", "whole number"]),
    ("outputs.captions.model_config.embedding_dim=30", ["multiple of num_heads"]),
    ("outputs.captions.sampling_config.presence_penalty=1", ["not supported", "frequency_penalty"]),
    ("outputs.captions.sampling_config.no_repeat_ngram_size=3", ["unknown key", "Did you mean 'no_repeat_ngram'"]),
    ("outputs.captions.sampling_config.top_p=0", ["greater than 0"]),
    ("outputs.captions.sampling_config.temperature=1e-40", ["0.01 to 100", "1e-40"]),
    ("globals.basic_experiment.device=gpu", ["cpu, cuda, cuda:N, mps or auto", "Did you mean 'cuda'"]),
    ("globals.basic_experiment.device=cuda:99999999999", ["cpu, cuda, cuda:N, mps or auto"]),
    ("globals.basic_experiment.n_epochs=", ["whole number", "found ''"]),
    ("outputs.captions.output_info.output_name=a/b", ["letters, digits, - and _", "'a/b'"]),
    ("globals.basic_experiment.seed=" + "x" * 5000, ["whole number", "xxx..."]),
]


@pytest.mark.parametrize(("override", "expected"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_each_mistake_is_one_clear_error(override: str, expected: list[str], tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "experiment.yaml", minimal_config())
    with pytest.raises(ConfigError) as caught:
        load_config(path, *(override.split(" ") if " globals" in override else [override]))
    message = str(caught.value)
    assert "command line: " in message
    assert len(message.splitlines()) == 1
    for part in expected:
        assert part in message, message


def test_a_mistake_in_a_file_names_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        yaml.safe_dump(minimal_config(), sort_keys=False).replace(
            "output_folder: runs/x", "output_folder: runs/x\n    n_epoch: 3"
        )
    )
    with pytest.raises(
        ConfigError, match=rf"{path}:4: globals.basic_experiment.n_epoch: unknown key. Did you mean 'n_epochs'"
    ):
        load_config(path)


@pytest.mark.parametrize("key", ["[]", "int", "a[0]"])  # pydantic has such parts in its own paths
def test_an_unknown_key_is_named_whatever_it_looks_like(key: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(minimal_config()) + f"'{key}': 1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert key in str(caught.value)
    assert "unknown key" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: a: given twice, first on line 1"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: !!python/object:os.system 1\n", "tags are not supported"),
        ('a: 1\nb: "x \\ud800"\n', "f:2: b: expected text"),
        ('a: "x\\0y"\n', "f:1: a: expected text"),
        ("a: [1, 2\n", "f:2: not valid YAML"),
        ("? [1]\n: 2\n", "expected a name as key"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_yaml_that_is_more_than_plain_data_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match="f") as caught:
        parse_yaml(text, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("012", "012"),
        ("on", "on"),
        ("3:20", "3:20"),
        ("True", True),
        ("~", None),
        ("-7", -7),
        (".5", 0.5),
        ("1_000", "1_000"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


SHIPPED = [
    path
    for path in sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "src").rglob("*.yaml")])
    if "data" not in path.relative_to(ROOT).parts
]


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.name == "experiment.yaml"], ids=str)
def test_one_changed_letter_in_any_shipped_key_is_refused(path: Path, tmp_path: Path) -> None:
    load_config(path)
    document = parse_yaml(path.read_text(), "f")
    keys = {str(key[-1]) for key in document.sources if key and isinstance(key[-1], str)} - {
        "channels",
        "stem_type",
        "stem_width",
        "output_stride",
    }
    text = path.read_text()
    for key in sorted(keys):
        broken = text.replace(f"{key}:", f"{key}x:")
        assert broken != text
        changed = tmp_path / "experiment.yaml"
        changed.write_text(broken)
        with pytest.raises(ConfigError, match=key):
            load_config(changed)


VALUES = ["", "1e-3", "-1", ".nan", ".inf", "1e999", "0x10", "012", "on", "~", "[]", "{}", "[1", "&a 1", "*a", "!!python/name:os.system",
          "'", '"\\ud800"', '"\\0"', "9" * 400, "[" * 50, "../..", "\t", "\u2028", "\ud7ff\U0001f600", "true", "- 1", "a: b", "3:20", "|"]  # fmt: skip


@given(
    st.sampled_from([path for path in SHIPPED if path.name == "experiment.yaml"]),
    st.integers(0, 500),
    st.sampled_from(["value", "key", "double", "drop", "indent", "letter"]),
    st.one_of(st.sampled_from(VALUES), st.text(st.characters(codec="utf-8"), max_size=8)),
)
@settings(deadline=None, max_examples=250)
def test_a_shipped_file_with_one_line_changed_is_read_or_refused_with_its_place(
    path: Path, number: int, change: str, text: str
) -> None:
    lines = path.read_text().split("\n")
    at = number % len(lines)
    key, _, value = lines[at].partition(":")
    lines[at : at + 1] = {
        "value": [f"{key}: {text}"],
        "key": [f"{key}{text}:{value}"],
        "double": [lines[at], lines[at]],
        "drop": [],
        "indent": [f"  {lines[at]}"],
        "letter": [lines[at][: number % 7] + text[:1] + lines[at][number % 7 + 1 :]],
    }[change]
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "experiment.yaml"
        changed.write_bytes("\n".join(lines).encode())
        try:
            config = load_config(changed)
        except ConfigError as error:
            assert str(error).strip()
            return
        changed.write_text(to_yaml(config), encoding="utf-8")
        assert load_config(changed) == config
