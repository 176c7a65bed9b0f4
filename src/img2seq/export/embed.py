"""`--embed` of `train` and `export`: a pretrained language model goes along with what was trained of it."""

from __future__ import annotations

from pathlib import Path

from img2seq.build.trained import TrainedRun
from img2seq.config.causal_lm import CausalLM
from img2seq.config.load import load_config
from img2seq.config.section import Section
from img2seq.errors import ConfigError
from img2seq.export.lean import replace_weights, write_config
from img2seq.run.folder import RunFolder

OVERRIDE = "outputs.model_config.embed=true"


def check_embed(decoder: Section) -> None:
    """Raise ConfigError unless a decoder is a language model."""
    if not isinstance(decoder, CausalLM):
        raise ConfigError(
            "--embed: expected model_type: causal_lm; found no pretrained language model, and nothing is left out of a run without one"
        )


def embed_language_model(trained: TrainedRun, folder: Path) -> None:
    """Let a lean run hold the language model that its run reads from elsewhere."""
    trained.model.decoder.keep_all()  # its state is then compared with what was written, too
    export = RunFolder(folder)
    replace_weights(export, trained.model.state_dict())
    write_config(export, load_config(export.config, OVERRIDE))
