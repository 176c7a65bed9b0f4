"""Attention for decoding one token at a time: what earlier tokens and the images gave is kept, not computed again.

Shapes: B images, W rows of an image (beams or samples), R = B W rows in all, T tokens so far, P places of the memory, D
width, H heads, K = D / H; G groups of F rows, R = G F.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from img2seq.model.decoder import Decoder


class DecodingCache:
    """Keys and values of the captions so far and of the memory (one set an image).

    Beams change places at every token. Moving their keys and values would cost more than attending to them, so the rows of
    a group write into one store and never move: token t of row f has place t F + f, and each row knows which places its
    own caption wrote. Only that knowledge follows the beams. The price is that each row also multiplies the keys of the
    others, which it cannot see: nothing beside the linear layers while groups are small.

    Args:
        decoder: whose layers attend here.
        memory: (B, P, D), or None for the text-only model.
        n_images: B.
        n_rows: W.
        group: F, rows that may continue one another; 1 where each row only continues itself.
        max_tokens: most steps that will be taken.
    """

    def __init__(
        self, decoder: Decoder, memory: Tensor | None, *, n_images: int, n_rows: int, group: int, max_tokens: int
    ):
        self.n_heads, self.n_rows, self.group, self.length = decoder.n_heads, n_rows, group, 0
        self.memory = [(keys.contiguous(), values.contiguous()) for keys, values in decoder.memory_keys_values(memory)]
        weight = decoder.embedding.weight
        shape = (2, n_images * n_rows // group, self.n_heads, max_tokens * group, decoder.width // self.n_heads)
        self.captions = [weight.new_empty(shape) for _ in decoder.blocks]
        # (R, places): 0 where a row sees, minus infinity elsewhere. Of steps to come each row sees its own place.
        own = torch.eye(group, dtype=weight.dtype, device=weight.device).log()
        self.seen = own.repeat(n_images * n_rows // group, max_tokens) if group > 1 else None

    def attend_to_caption(self, layer: int, qkv: Tensor) -> Tensor:
        """Return (R, D) for (R, 3 D): the newest token of each row attends to all of its row."""
        begin, end = self.length * self.group, (self.length + 1) * self.group
        table = qkv.view(-1, self.group, 3, self.n_heads, qkv.shape[1] // (3 * self.n_heads)).permute(2, 0, 3, 1, 4)
        kept = self.captions[layer]
        kept[:, :, :, begin:end] = table[1:]
        seen = None if self.seen is None else self.seen[:, :end].view(-1, 1, self.group, end)
        keys, values = kept[:, :, :, :end].unbind(0)
        gathered = F.scaled_dot_product_attention(table[0], keys, values, attn_mask=seen)
        return gathered.transpose(1, 2).reshape(len(qkv), -1)

    def attend_to_memory(self, layer: int, q: Tensor) -> Tensor:
        """Return (R, D) for (R, D): all rows of an image attend to its one memory together."""
        R, D = q.shape
        keys, values = self.memory[layer]
        table = q.view(-1, self.n_rows, self.n_heads, D // self.n_heads).transpose(1, 2)
        return F.scaled_dot_product_attention(table, keys, values).transpose(1, 2).reshape(R, D)

    def keep_rows(self, rows: Tensor) -> None:
        """Let row i go on from what row `rows[i]` of the same group has seen so far."""
        if self.seen is not None:
            until = self.length * self.group
            self.seen[:, :until] = self.seen[:, :until].index_select(0, rows)

    def keep_images(self, images: Tensor) -> None:
        """Forget all images but these, with their rows."""
        groups = _parts(images, self.n_rows // self.group)
        self.captions = [kept.index_select(1, groups) for kept in self.captions]
        self.memory = [(keys.index_select(0, images), values.index_select(0, images)) for keys, values in self.memory]
        if self.seen is not None:
            self.seen = self.seen.index_select(0, _parts(images, self.n_rows))


def _parts(images: Tensor, n: int) -> Tensor:
    """Return the numbers of all parts of these images, where each image has n."""
    return (images.unsqueeze(1) * n + torch.arange(n, device=images.device)).flatten()
