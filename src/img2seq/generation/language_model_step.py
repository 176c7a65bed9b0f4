"""A language model's answers to a search, token by token, over the cache of transformers.

Shapes: B images, W rows of an image, R = B W rows in all, P places of the memory, E width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from img2seq.generation.torch_arrays import TorchArrays
from img2seq.model.language_model import LanguageModelDecoder


class LanguageModelStep:
    """One language model's answers: see `Step`.

    Args:
        decoder: in evaluation mode.
        memory: (B, P, E), None for the text-only model.
        n_images: B.
    """

    def __init__(self, decoder: LanguageModelDecoder, memory: Tensor | None, *, n_images: int):
        self.decoder, self.memory, self.n_images = decoder, memory, n_images
        self.most_tokens, self.arrays = decoder.n_positions - 1, TorchArrays(decoder.begin.device)

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        """Read each image's prefix once; its keys and values are then those of each of its rows."""
        from transformers import DynamicCache

        model = self.decoder.language_model
        self.cache, self.n_rows, self.length = DynamicCache(config=model.config), n_rows, self.decoder.prefix_length
        if self.memory is not None:
            prefix = self.decoder.prefix(self.memory)
            model(inputs_embeds=prefix, cache=self.cache, use_cache=True, logits_to_keep=1)
            self.cache.batch_repeat_interleave(n_rows)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Return (R, V) logits."""
        logits: Tensor = self.decoder.language_model(
            inputs_embeds=self.decoder.embed(tokens).unsqueeze(1),
            cache=self.cache,
            position_ids=torch.full_like(tokens, self.length).unsqueeze(1),
            use_cache=True,
        ).logits
        self.length += 1
        return logits[:, -1]

    def keep_rows(self, rows: Tensor) -> None:
        """See `Step`."""
        self.cache.reorder_cache(rows)

    def keep_images(self, images: Tensor) -> None:
        """See `Step`."""
        rows = images.unsqueeze(1) * self.n_rows + torch.arange(self.n_rows, device=images.device)
        self.cache.batch_select_indices(rows.flatten())
