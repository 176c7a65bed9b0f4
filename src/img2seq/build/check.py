"""What can be known to be wrong before images are read, which may take hours: options, weights, vocabulary, beginnings."""

from __future__ import annotations

import os

import torch

from img2seq.build.facts import Facts, image_specs
from img2seq.build.language_model_start import PretrainedLanguageModel
from img2seq.build.model import build_model
from img2seq.build.start_weights import pretrained, weights_file
from img2seq.config.schema import Experiment
from img2seq.data.image import from_any
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.vocabulary import from_vocab_file
from img2seq.errors import ConfigError, ModelError
from img2seq.extras import require
from img2seq.model.check_encoder import check_name
from img2seq.model.foreign_weights import read_any_shapes


def check_before_reading(config: Experiment, *, is_new: bool, language: PretrainedLanguageModel | None = None) -> None:
    """Raise what is wrong with a configuration however its data turn out.

    Args:
        config: what is to be trained.
        is_new: whether the run starts from weights of its own choice, not from its checkpoint.
        language: the language model that is the decoder.

    Raises:
        ConfigError, DataError, ModelError: naming the field or file.
    """
    require("visualization_logging.loggers", config.globals.visualization_logging.loggers)
    specs = image_specs(config.inputs)
    for entry in config.inputs:
        check_name(entry.model.model_type)
        for manual in config.output.sampling_config.manual_inputs:
            from_any(manual[entry.name], specs[entry.name])
    info = config.output.output_type_info
    if info.vocab_file is not None:
        check_beginnings(config, from_vocab_file(info.vocab_file, split_on=info.split_on, lowercase=info.lowercase))
    elif info.tokenizer is None and language is None:  # how many tokens a text has does not depend on the vocabulary
        check_beginnings(config, Tokenizer(SPECIAL_TOKENS, split_on=info.split_on, lowercase=info.lowercase))
    _check_model(config, language)
    if is_new:
        _check_start(config)


def check_beginnings(config: Experiment, tokenizer: Tokenizer) -> None:
    """Raise ConfigError if the beginning of a manual input leaves no room for another token."""
    sampling = config.output.sampling_config
    for n, entry in enumerate(sampling.manual_inputs):
        n_tokens = len(tokenizer.encode(entry.get(config.output.name, "")))
        if n_tokens >= sampling.generated_sequence_length:
            raise ConfigError(
                f"outputs.{config.output.name}.sampling_config.manual_inputs[{n}]: expected a beginning of fewer than "
                f"{sampling.generated_sequence_length} tokens (generated_sequence_length), found {n_tokens}"
            )


def _check_model(config: Experiment, language: PretrainedLanguageModel | None) -> None:
    """Build the model without memory, with statistics and a vocabulary that stand for those of the data."""
    n_channels = {name: spec.stored_shape[2] for name, spec in image_specs(config.inputs).items()}
    normalization = {name: {"mean": [0.5] * n, "std": [0.5] * n} for name, n in n_channels.items()}
    n_positions = config.output.sampling_config.generated_sequence_length + 1
    facts = Facts(
        2,
        n_positions,
        len(SPECIAL_TOKENS) + 1,
        normalization,
        tokenizer_digest="",
        preprocessing={},
        language_model=None if language is None else language.facts,
    )
    with torch.device("meta"):
        model = build_model(config.inputs, config.output, facts)
    needed, present = sum(4 * p.numel() for p in model.parameters()), _memory_bytes()
    if needed > present:
        raise ModelError(
            f"the weights of this model take {needed / 1e9:,.0f} GB, this machine has {present / 1e9:,.0f} GB of memory; lower embedding_dim, num_layers or dim_feedforward"
        )


def _memory_bytes() -> float:
    """Return the machine's memory, or infinity where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return float("inf")


def _check_start(config: Experiment) -> None:
    """Read the weights that a new run starts from, or say that there are none for a frozen encoder."""
    if config.globals.model.pretrained_run is not None:
        return  # see `other_captioner`
    source = config.globals.model.pretrained_checkpoint
    if source is not None:
        read_any_shapes(weights_file(source))
    for entry in config.inputs:
        options, spec = entry.model, image_specs([entry])[entry.name]
        has_weights = options.pretrained_model or options.pretrained_weights is not None
        if has_weights:
            create = pretrained(options)
            create(options.model_type, spec.height, spec.width, spec.stored_shape[2], options.model_init_config)
        elif options.freeze_pretrained_model and source is None:
            raise ConfigError(
                f"inputs.{entry.name}.model_config.freeze_pretrained_model: this encoder has no pretrained weights, its features would stay random; "
                "set pretrained_model: true or pretrained_weights: FILE, or pretrained_weights: random if that is meant"
            )
