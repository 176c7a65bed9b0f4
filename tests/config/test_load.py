"""Loading: what a user may write, and what each mistake is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from conftest import SHARED, minimal_config, needs_tutorial, tiny_config, write_yaml
from img2seq.config.load import ConfigFiles, load, load_config
from img2seq.config.outputs import SequenceModel
from img2seq.config.schema import Experiment
from img2seq.config.section import sections_of
from img2seq.config.show import describe, to_plain, to_yaml
from img2seq.config.yaml_reader import parse_yaml
from img2seq.errors import ConfigError

CONF = SHARED / "tutorial/conf"


def tutorial(*overrides: str, with_image: bool = True) -> Experiment:
    files = ConfigFiles(
        globals=[str(CONF / "globals.yaml")],
        inputs=[str(CONF / "inputs_resnet18.yaml")] if with_image else [],
        fusion=[str(CONF / "fusion.yaml")],
        outputs=[str(CONF / "output.yaml")],
    )
    return load(files, overrides).experiment


@needs_tutorial
def test_the_tutorials_four_files_load_unchanged() -> None:
    config = tutorial()
    assert config.globals.optimization.optimizer == "adabelief"
    assert config.globals.basic_experiment.valid_size == 500
    assert config.inputs[0].input_type_info.height_width == (64, 64)
    assert config.output.output_type_info.max_length == 32
    assert isinstance(config.output.model, SequenceModel)
    assert config.output.model.model_init_config.num_layers == 6
    assert config.output.sampling_config.generated_sequence_length == 64
    assert tutorial(with_image=False).inputs == []


@needs_tutorial
def test_overrides_go_by_section_name_input_name_and_file_stem() -> None:
    config = tutorial(
        "globals.optimization.lr=3e-4",
        "inputs.image_captioning.model_config.pretrained_model=false",
        "inputs_resnet18.input_type_info.size=[48, 32]",
        "outputs.captions.output_type_info.max_length=24",
        "output.output_type_info.min_freq=5",
        "globals.basic_experiment.manual_valid_ids_file=None",
    )
    assert config.globals.optimization.lr == 3e-4
    assert config.inputs[0].model.pretrained_model is False
    assert config.inputs[0].input_type_info.height_width == (48, 32)
    assert (config.output.output_type_info.max_length, config.output.output_type_info.min_freq) == (24, 5)


# Field, default: of the framework the tutorial was written for, version 0.23.0 (its published schema).
PEER_DEFAULTS = """
globals.basic_experiment: n_epochs=10 batch_size=64 valid_size=0.1 manual_valid_ids_file=None dataloader_workers=0 device=cpu memory_dataset=False
globals.model: compile_model=False n_iter_before_swa=None pretrained_checkpoint=None strict_pretrained_loading=True
globals.optimization: optimizer=adamw lr=0.0003 lr_lb=0.0 b1=0.9 b2=0.999 wd=0.0001 gradient_clipping=1.0 gradient_accumulation_steps=None gradient_noise=0.0
globals.lr_schedule: lr_schedule=plateau lr_plateau_patience=10 lr_plateau_factor=0.2 warmup_steps=auto plot_lr_schedule=False
globals.training_control: early_stopping_patience=10 early_stopping_buffer=None weighted_sampling_columns=None mixing_alpha=0.0
globals.evaluation_checkpoint: sample_interval=200 saved_result_detail_level=5 checkpoint_interval=None n_saved_models=1
globals.attribution_analysis: compute_attributions=False max_attributions_per_class=None attributions_every_sample_factor=1 attribution_background_samples=256
globals.visualization_logging: plot_skip_steps=200 no_pbar=False log_level=info save_model_diagram=False
globals.data_preparation: streaming_setup_samples=10000 streaming_batch_size=None
globals.accelerator: hardware=auto precision=32-true strategy=auto devices=auto num_nodes=1
inputs.0.input_type_info: auto_augment=True size=[64] resize_approach=resize adaptive_normalization_max_samples=None mean_normalization_values=None stds_normalization_values=None mode=None num_channels=None mixing_subtype=mixup modality_dropout_rate=0.0
inputs.0.model_config: num_output_features=0 pretrained_model=False freeze_pretrained_model=False
outputs.0.output_type_info: vocab_file=None max_length=average sampling_strategy_if_longer=uniform min_freq=10 split_on=' ' tokenizer=None tokenizer_language=None adaptive_tokenizer_max_vocab_size=None sequence_operation=autoregressive
outputs.0.sampling_config: manual_inputs=[] n_eval_inputs=10 generated_sequence_length=64 repetition_penalty=1.1 repetition_penalty_max_window=64 frequency_penalty=0.1 frequency_penalty_max_window=128 temperature=0.7 top_k=20 top_p=0.9 tau=0.95
outputs.0.model_config: model_type=sequence embedding_dim=64 position=encode position_dropout=0.1
outputs.0.model_config.model_init_config: num_heads=8 num_layers=2 dim_feedforward=auto dropout=0.1
"""


def test_every_field_of_the_peer_exists_with_its_default() -> None:
    plain = to_plain(Experiment.model_validate(minimal_config()))
    for line in PEER_DEFAULTS.strip().splitlines():
        path, _, fields = line.partition(": ")
        section = plain
        for key in path.split("."):
            section = section[int(key) if key.isdigit() else key]  # type: ignore[index]
        for field in fields.replace("' '", "<space>").split(" "):
            name, _, default = field.partition("=")
            assert str(section[name]) == default.replace("<space>", " "), f"{path}.{name}"


def test_every_field_says_what_it_means() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            nested = sections_of(field.annotation)
            assert field.description or nested, f"{model.__name__}.{name}"
            for inner in nested:
                walk(inner)

    walk(Experiment)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20))
def test_a_resolved_configuration_reads_back_equal_whatever_its_texts(text: str) -> None:
    data = minimal_config()
    data["outputs"][0]["output_info"]["output_source"] = text
    config = Experiment.model_validate(data)
    assert Experiment.model_validate(parse_yaml(to_yaml(config), "f").data) == config


def test_describe_says_where_each_value_came_from(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "experiment.yaml", minimal_config())
    lines = describe(load(ConfigFiles(experiment=str(path)), ["globals.optimization.lr=0.01"])).splitlines()
    source = {line.split(":")[0]: line.rpartition("# ")[2] for line in lines}
    assert source["globals.optimization.lr"] == "command line"
    assert source["globals.basic_experiment.output_folder"] == f"{path}:3"
    assert source["globals.optimization.b1"] == "default"


@pytest.mark.parametrize("name", ["flickr8k", "coco"])
def test_the_files_of_the_examples_are_valid(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "examples" / name / "experiment.yaml")
    assert config.globals.basic_experiment.output_folder == f"runs/{name}"


def test_the_schema_is_json_schema() -> None:
    schema = Experiment.model_json_schema(by_alias=True)
    assert json.loads(json.dumps(schema))["properties"].keys() == {"globals", "inputs", "fusion", "outputs"}


def test_two_outputs_are_refused_with_the_reason(tmp_path: Path) -> None:
    data = tiny_config(tmp_path)
    data["outputs"].append(tiny_config(tmp_path)["outputs"][0])
    with pytest.raises(ConfigError, match="one sequence output"):
        load_config(write_yaml(tmp_path / "e.yaml", data))


def test_a_phase_goes_by_its_name(tmp_path: Path) -> None:
    config = minimal_config()
    config["globals"]["phases"] = [{"name": "decoder", "n_epochs": 2}, {"name": "encoder", "n_epochs": 1}]
    path = write_yaml(tmp_path / "experiment.yaml", config)
    first, second = load_config(path, "globals.phases.encoder.lr=0.5", "globals.phases.decoder.n_epochs=7").globals.phases  # fmt: skip
    assert (first.n_epochs, first.lr, second.n_epochs, second.lr) == (7, None, 1, 0.5)
    for text, expected in (
        ("globals.phases.encode.lr=1", "none is named 'encode'; found 'decoder', 'encoder'.*Did you mean 'encoder'"),
        ("globals.phases.encoder.lr=fast", "phases.*lr: expected a number"),
        ("globals.phases.encoder=3", "phases is a value, not a section"),
        ("globals.phases.encoder.lr.of=3", "lr is a value, not a section|lr: expected"),
    ):
        with pytest.raises(ConfigError, match=expected):
            load_config(path, text)


def test_an_empty_override_is_the_empty_text(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "experiment.yaml", minimal_config())
    characters = load_config(path, "outputs.captions.output_type_info.split_on=")
    assert characters.output.output_type_info.split_on == ""
    for text in ("null", "None", "~"):
        assert load_config(path, f"globals.model.ema_decay={text}").globals.model.ema_decay is None
