"""Captions by transformers' `generate`, from a decoder of the size asked for. Runs in Hugging Face's environment.

Each line of input is a JSON object, each line of output its answer: the seconds that `generate` took.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import transformers

BOS, PAD, EOS = 0, 3, 4  # as in our vocabularies


def decoder(vocabulary: int, width: int, layers: int, heads: int) -> Any:
    """Return a random GPT-2 with cross-attention."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=64, add_cross_attention=True,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


@torch.inference_mode()
def seconds(model: Any, images: int, places: int, width: int, tokens: int, beams: int) -> float:
    """Return how long captions of exactly `tokens` tokens take."""
    memory = torch.randn(images, places, width)
    begin = torch.full((images, 1), BOS)
    begun = time.perf_counter()
    model.generate(
        begin, attention_mask=torch.ones_like(begin), encoder_hidden_states=memory, num_beams=beams,
        min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False,
    )  # fmt: skip
    return time.perf_counter() - begun


if __name__ == "__main__":
    model = decoder(**json.loads(sys.stdin.readline()))
    print(json.dumps({"version": transformers.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": seconds(model, **json.loads(line))}), flush=True)
