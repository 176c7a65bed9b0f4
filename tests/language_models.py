"""Random language models of three architectures, as transformers saves them, small enough to train in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch

TEXTS = (
    "a red ball .",
    "there is one blue box and it is black .",
    "the green box looks green .",
    "an old lamp stands here",
)
BEGIN, END = "<|begin|>", "<|end|>"
KINDS = ("gpt2", "llama", "opt")


def byte_pairs(texts: Sequence[str] = TEXTS, size: int = 340) -> tokenizers.Tokenizer:
    """Return a byte-pair tokenizer over bytes, with the control tokens of language models."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[BEGIN, END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def write_language_model(folder: Path, kind: str) -> Path:
    """Write a random model with weights so large that its distributions are not flat."""
    import transformers

    folder.mkdir(parents=True)
    tokenizer = byte_pairs()
    tokenizer.save(str(folder / "tokenizer.json"))
    size: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "initializer_range": 0.4,
    }
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 160}
    torch.manual_seed(0)
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=160, **size),
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=32, intermediate_size=64, num_key_value_heads=2, **heads, **size
        ),
        "opt": lambda: transformers.OPTConfig(
            init_std=0.4, hidden_size=32, ffn_dim=64, word_embed_proj_dim=16, **heads, **size
        ),
    }[kind]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    log = transformers.utils.logging
    log.disable_progress_bar()
    model.save_pretrained(folder)
    log.enable_progress_bar()
    return folder
