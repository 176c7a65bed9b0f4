"""What a new run needs of a pretrained language model beside its weights: its tokenizer, and which of its tokens the run has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from img2seq.build.facts import LanguageModelFacts, read_facts
from img2seq.build.language_model import FIELD, LanguageModelFiles, find_files, quiet_transformers
from img2seq.config.causal_lm import CausalLM
from img2seq.config.schema import Experiment
from img2seq.data.language_model_tokens import OwnTokens
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.errors import ModelError
from img2seq.extras import LM, require
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder, read_tokenizer


@dataclass(frozen=True)
class PretrainedLanguageModel:
    """What a run's decoder is made of.

    Attributes:
        facts: what the run keeps of it; its rows are those of all tokens, before they are cut.
        model: with its weights; None for a run that is resumed, whose model is read where it is built.
        own: its tokenizer.
        known: the tokenizer of a run that is resumed.
    """

    facts: LanguageModelFacts
    model: Any
    own: OwnTokens | None = None
    known: Tokenizer | None = None

    def tokenizer_for(self, captions: Sequence[str], config: Experiment) -> tuple[Tokenizer, LanguageModelFacts]:
        """Return the tokenizer of a run with these training captions, and what the run keeps of the language model."""
        if self.own is None:
            assert self.known is not None
            return self.known, self.facts
        options, info = config.output.model, config.output.output_type_info
        assert isinstance(options, CausalLM)
        kept = self.own.tokenizer(captions if options.restrict_vocabulary else None, lowercase=info.lowercase)
        numbers = [self.own.numbers[token] for token in kept.tokens[len(SPECIAL_TOKENS) :]]
        rows = [*self.facts.rows[: len(SPECIAL_TOKENS)], *numbers]
        return kept, LanguageModelFacts(self.facts.digest, rows, self.facts.config)


def pretrained_language_model(config: Experiment, previous: Checkpoint | None) -> PretrainedLanguageModel | None:
    """Read the language model that a configuration names; None for a decoder of another kind.

    Raises:
        ConfigError, DataError, ModelError: if it is not there, is another kind of model, or its tokenizer does not fit.
    """
    options = config.output.model
    if not isinstance(options, CausalLM):
        return None
    require("model_type: causal_lm", LM)
    if previous is not None:
        run = RunFolder(previous.path.parents[1])
        if (facts := read_facts(run).language_model) is not None:
            return PretrainedLanguageModel(facts, None, known=read_tokenizer(run))
    files = find_files(options.pretrained)
    model, own = files.read_model(), read_own_tokens(files)
    settings, n_rows = model.config, len(model.get_input_embeddings().weight)
    if (greatest := max(own.numbers.values(), default=0)) >= n_rows:
        raise ModelError(
            f"{FIELD}: {options.pretrained}: its tokenizer does not fit the model: expected numbers below {n_rows:,}, found {greatest:,}"
        )
    begin, end = (_first(getattr(settings, f"{name}_token_id", None)) for name in ("bos", "eos"))
    if end is None or not 0 <= end < n_rows:
        raise ModelError(f"{FIELD}: {options.pretrained}: its settings name no end token (eos_token_id: {end})")
    begin = end if begin is None or not 0 <= begin < n_rows else begin
    rows = [begin, begin, begin, begin, end]
    return PretrainedLanguageModel(LanguageModelFacts(files.digest, rows, settings.to_dict()), model, own)


def _first(number: Any) -> int | None:
    return number[0] if isinstance(number, list) and number else number if isinstance(number, int) else None


def read_own_tokens(files: LanguageModelFiles) -> OwnTokens:
    """Return the tokenizer of a language model."""
    if files.gguf is None:
        path = files.folder / "tokenizer.json"
        return OwnTokens.read(path.read_text(encoding="utf-8"), str(path))
    with quiet_transformers(f"{FIELD}: {files.name}") as library:
        found = library.AutoTokenizer.from_pretrained(
            str(files.folder), gguf_file=files.gguf, local_files_only=True, trust_remote_code=False
        )
        return OwnTokens.read(found.backend_tokenizer.to_str(), files.name)
