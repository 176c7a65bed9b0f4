"""From a configuration's inputs and output, and the facts of its data, to a model."""

from __future__ import annotations

from collections.abc import Callable

from img2seq.build.facts import Facts
from img2seq.config.inputs import ImageModel
from img2seq.config.model_sections import ModelSections
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import CreateBackbone, ImageEncoder, create_backbone


def without_pretrained(options: ImageModel) -> CreateBackbone:
    """Create an encoder whose weights will be read from a checkpoint, or trained."""
    return create_backbone


def build_model(
    config: ModelSections, facts: Facts, *, create_of: Callable[[ImageModel], CreateBackbone] = without_pretrained
) -> CaptionModel:
    """Return the model a configuration describes; `create_of` says where an encoder's first weights come from."""
    output = config.output.model
    size = output.model_init_config
    encoders = {}
    for entry in config.inputs:
        height, width = entry.input_type_info.height_width
        options = entry.model
        encoders[entry.name] = ImageEncoder(
            options.model_type,
            height=height,
            width=width,
            **facts.normalization[entry.name],
            options=options.model_init_config,
            frozen=options.freeze_pretrained_model,
            create=create_of(options),
        )
    decoder = Decoder(
        vocabulary=facts.vocabulary,
        width=output.embedding_dim,
        n_layers=size.num_layers,
        n_heads=size.num_heads,
        feedforward=output.feedforward_dim,
        dropout=size.dropout,
        position_dropout=output.position_dropout,
        position=output.position,
        n_positions=facts.n_positions,
        has_memory=bool(encoders),
    )
    return CaptionModel(encoders, decoder, context_dropout=size.dropout)
