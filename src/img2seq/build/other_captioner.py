"""Begin with encoder, decoder and vocabulary of another captioner: what must agree, and how its vocabulary grows.

The vector of a new word (the row of the embedding, which is also that of the output) and its bias are the mean of those of the known words
that have its longest beginning in common, of at least `SHARED_BEGINNING` characters, as "climb" and "climbing" have with "climber"; of all known
words where there is none. So its logit is the mean of theirs, and the logits of known words stay as they were. Learned positions beyond those
of the other captioner begin as its last one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from img2seq.build.began_with import describe_beginning
from img2seq.build.facts import Facts, read_facts
from img2seq.build.trained import TrainedRun, load_run
from img2seq.config.causal_lm import CausalLM
from img2seq.config.inputs import ImageInput
from img2seq.config.outputs import SequenceModel, SequenceOutput
from img2seq.config.schema import Experiment
from img2seq.config.show import value_text
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.errors import ConfigError, listed
from img2seq.model.caption_model import CaptionModel
from img2seq.run.captioning_folder import is_onnx_export
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder, read_tokenizer
from img2seq.run.hub import is_on_hub, local_folder

FIELD = "globals.model.pretrained_run"
SHARED_BEGINNING = 4  # characters


@dataclass(frozen=True)
class OtherCaptioner:
    """What a run begins with.

    Attributes:
        tokenizer: whose tokens keep their numbers.
        facts: whose normalisation and positions are kept.
        trained: with its weights; None for a run that is resumed, which has all of this itself.
    """

    tokenizer: Tokenizer
    facts: Facts
    trained: TrainedRun | None

    def give_weights(
        self, model: CaptionModel, tokenizer: Tokenizer, facts: Facts, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Load the other captioner's weights, grown to a vocabulary; return what pretrained.json is to hold. A resumed run has its own already."""
        if self.trained is None:
            return {}
        model.load_state_dict(grow(self.trained.model.state_dict(), self.tokenizer, tokenizer, facts.n_positions))
        n_known = len(self.tokenizer)
        began_with = {
            "run": str(self.trained.run.path),
            "step": self.trained.checkpoint.step,
            "words": n_known - len(SPECIAL_TOKENS),
            "new_words": tokenizer.tokens[n_known:],
        }
        say(f"begins with {describe_beginning(began_with)}")
        return began_with


def other_captioner(config: Experiment, previous: Checkpoint | None) -> OtherCaptioner | None:
    """Return what a run begins with, None for a run of its own. A resumed run needs nothing of the other one.

    Raises:
        ConfigError: if the two do not agree, with all fields that differ; or if the other one cannot be trained further.
        RunError: if it is no run, or damaged.
    """
    if previous is not None:
        run = RunFolder(previous.path.parents[1])
        return OtherCaptioner(read_tokenizer(run), read_facts(run), None) if run.pretrained.is_file() else None
    source = config.globals.model.pretrained_run
    if source is None:
        return None
    if is_onnx_export(local_folder(source)):
        raise ConfigError(
            f"{FIELD}: {source} is an export for ONNX Runtime, which cannot be trained further; name the run it was made from, or a lean export of it: img2seq export RUN DIR"
        )
    if Path(source).resolve() == Path(config.globals.basic_experiment.output_folder).resolve():
        raise ConfigError(f"{FIELD}: expected another run than output_folder, found {source} in both")
    trained = load_run(source, device="cpu")
    if isinstance(trained.config.output.model, CausalLM):
        raise ConfigError(
            f"{FIELD}: the decoder of {source} is a language model: expected a captioner whose decoder is of model_type sequence"
        )
    if lines := differences(config, trained):
        hint = "" if is_on_hub(source) else ", or leave the field out: it is then taken from there"
        raise ConfigError(
            f"{FIELD}: these fields must be as in {source}:\n{listed(lines, most=30)}\nWrite what is expected{hint}"
        )
    return OtherCaptioner(trained.tokenizer, trained.facts, trained)


def differences(config: Experiment, trained: TrainedRun) -> list[str]:
    """Return a line for each field that must be as in a trained run and is not."""
    before, now, tokenizer = trained.config, config, trained.tokenizer
    expected, found = (_decides_weights(sections.inputs, sections.output) for sections in (before, now))
    is_bpe, info = tokenizer.split_on is None, config.output.output_type_info
    at = "outputs.output_type_info"
    expected |= {
        f"{at}.tokenizer": "bpe" if is_bpe else None,
        f"{at}.lowercase": tokenizer.lowercase,
        f"{at}.vocab_file": None,
    }
    found |= {f"{at}.tokenizer": info.tokenizer, f"{at}.lowercase": info.lowercase, f"{at}.vocab_file": info.vocab_file}
    if not is_bpe and info.tokenizer is None:
        expected[f"{at}.split_on"], found[f"{at}.split_on"] = tokenizer.split_on, info.split_on
    for name, values in trained.facts.normalization.items():
        at = f"inputs.{name}.input_type_info"
        expected |= {
            f"{at}.mean_normalization_values": values["mean"],
            f"{at}.stds_normalization_values": values["std"],
        }
    return [
        f"{name}: expected {value_text(expected[name])}, found {value_text(found[name])}"
        for name in expected
        if name in found and expected[name] != found[name]
    ]


def _decides_weights(inputs: Sequence[ImageInput], output: SequenceOutput) -> dict[str, Any]:
    """Return the fields that shapes and meaning of the weights depend on.

    Each place of a feature map has a learned vector, so the size of the images is one of them.
    """
    fields: dict[str, Any] = {"inputs: input_name": [entry.name for entry in inputs]}
    for entry in inputs:
        info, at = entry.input_type_info, f"inputs.{entry.name}"
        fields |= {
            f"{at}.input_type_info.size": list(info.height_width),
            f"{at}.input_type_info.mode": info.channels,
            f"{at}.model_config.model_type": entry.model.model_type,
            f"{at}.model_config.model_init_config": entry.model.model_init_config,
        }
        if info.mean_normalization_values is not None:
            fields[f"{at}.input_type_info.mean_normalization_values"] = info.mean_normalization_values
            fields[f"{at}.input_type_info.stds_normalization_values"] = info.stds_normalization_values
    model, at = output.model, "outputs.model_config"
    assert isinstance(model, SequenceModel)  # others are refused before
    size = model.model_init_config
    return fields | {
        f"{at}.embedding_dim": model.embedding_dim,
        f"{at}.position": model.position,
        f"{at}.model_init_config.num_layers": size.num_layers,
        f"{at}.model_init_config.num_heads": size.num_heads,
        f"{at}.model_init_config.dim_feedforward": model.feedforward_dim,
    }


def grow(weights: Mapping[str, Tensor], before: Tokenizer, now: Tokenizer, n_positions: int) -> dict[str, Tensor]:
    """Return a captioner's weights with rows for the tokens that `now` has beyond those of `before`, and so many learned positions."""
    grown = dict(weights)
    if relatives := relatives_of(now.tokens[len(before) :], before.tokens):
        for name in ("decoder.embedding.weight", "decoder.bias"):
            of_all = weights[name][len(SPECIAL_TOKENS) :].mean(0)
            rows = [weights[name][numbers].mean(0) if numbers else of_all for numbers in relatives]
            grown[name] = torch.cat([weights[name], torch.stack(rows)])
    if (learned := weights.get("decoder.position")) is not None:
        grown["decoder.position"] = torch.cat([learned, *[learned[-1:]] * (n_positions - len(learned))])
    return grown


def relatives_of(new: Sequence[str], known: Sequence[str]) -> list[list[int]]:
    """Return for each new word the numbers of the known words that have its longest beginning in common, none where that is short."""
    by_beginning: dict[str, list[int]] = defaultdict(list)
    for number, word in enumerate(known[len(SPECIAL_TOKENS) :], len(SPECIAL_TOKENS)):
        for end in range(SHARED_BEGINNING, len(word) + 1):
            by_beginning[word[:end]].append(number)
    beginnings = ([word[:end] for end in range(len(word), SHARED_BEGINNING - 1, -1)] for word in new)
    return [next((by_beginning[text] for text in of_word if text in by_beginning), []) for of_word in beginnings]
