"""The model over whole captions: every next token from the true tokens before it, all captions of a batch at once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from img2seq.model.attention import PackedAttention
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Decoder
from img2seq.model.packing import PackedBatch


def next_token_logits(model: CaptionModel, batch: PackedBatch) -> Tensor:
    """Return (N, V) logits of the token after each input token."""
    decoder, memory = model.decoder, model.encode(pixels=batch.pixels, features=batch.features)
    if not isinstance(decoder, Decoder):  # a language model has attention of its own
        logits: Tensor = decoder.next_token_logits(memory, batch)
        return logits
    attention = PackedAttention(batch, decoder.n_heads, decoder.memory_keys_values(memory))
    return decoder.logits(decoder(batch.input_ids, batch.positions, attention))


def token_losses(model: CaptionModel, batch: PackedBatch) -> Tensor:
    """Return (N,) negative log-probabilities of the target tokens, in nats."""
    return F.cross_entropy(next_token_logits(model, batch).float(), batch.target_ids, reduction="none")
