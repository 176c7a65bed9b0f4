"""From a configuration's inputs and output, and the facts of its data, to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from img2seq.build.facts import Facts
from img2seq.config.causal_lm import CausalLM
from img2seq.config.inputs import ImageInput, ImageModel
from img2seq.config.outputs import SequenceOutput
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import CreateBackbone, ImageEncoder, create_backbone


def without_pretrained(options: ImageModel) -> CreateBackbone:
    """Create an encoder whose weights will be read from a checkpoint, or trained."""
    return create_backbone


def build_model(
    inputs: Iterable[ImageInput],
    output: SequenceOutput,
    facts: Facts,
    *,
    create_of: Callable[[ImageModel], CreateBackbone] = without_pretrained,
    language_model: Any = None,
) -> CaptionModel:
    """Return the model that a configuration's inputs and output describe.

    `create_of` says where an encoder's first weights come from; `language_model` is one that was read already.
    """
    options = output.model
    encoders = {}
    for entry in inputs:
        height, width = entry.input_type_info.height_width
        encoders[entry.name] = ImageEncoder(
            entry.model.model_type,
            height=height,
            width=width,
            **facts.normalization[entry.name],
            options=entry.model.model_init_config,
            frozen=entry.model.freeze_pretrained_model,
            create=create_of(entry.model),
        )
    if isinstance(options, CausalLM):
        from img2seq.build.language_model import language_model_decoder

        reader = language_model_decoder(options, facts, has_memory=bool(encoders), model=language_model)
        return CaptionModel(encoders, reader, context_dropout=options.dropout)
    size = options.model_init_config
    decoder = Decoder(
        vocabulary=facts.vocabulary,
        width=options.embedding_dim,
        n_layers=size.num_layers,
        n_heads=size.num_heads,
        feedforward=options.feedforward_dim,
        dropout=size.dropout,
        position_dropout=options.position_dropout,
        position=options.position,
        n_positions=facts.n_positions,
        has_memory=bool(encoders),
    )
    return CaptionModel(encoders, decoder, context_dropout=size.dropout)
