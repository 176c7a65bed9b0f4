"""A pretrained language model as decoder: images are a prefix of its text.

A caption reads prefix, <bos>, w1 .. wn; without inputs there is no prefix: the text-only baseline. <bos> is a trained vector which begins as the one
that the language model begins texts with, so there is something to train in every mode.

Its attention belongs to transformers, which takes tables in place of packed tokens. A row of the table is an image: its prefix, then all its
captions end to end, each hidden from the others and numbered as if it stood alone. So the prefix is computed once for all captions of an image.

Shapes: B images, N tokens (of all captions), Q tokens of the image with the most, L vectors of the prefix, P places of the memory, E width of the
embeddings, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from img2seq.model.tables import spread

if TYPE_CHECKING:
    from img2seq.model.packing import PackedBatch


class LanguageModelDecoder(nn.Module):
    """A language model that reads a memory as the prefix of its text.

    Args:
        language_model: of transformers, with the rows of this vocabulary.
        mapping: (B, P, E) memory to (B, L, E) prefix; None without inputs.
        prefix_length: L, 0 without inputs.
        n_positions: most tokens of a caption, <bos> included.
        begin: number of the token <bos>.
        is_kept: whether the state of this module holds what of the language model is not trained.
    """

    def __init__(
        self,
        language_model: Any,
        mapping: nn.Module | None,
        *,
        prefix_length: int,
        n_positions: int,
        begin: int,
        is_kept: bool,
    ):
        super().__init__()
        self.language_model = language_model
        self.mapping = mapping
        self.prefix_length, self.n_positions, self._begin = prefix_length, n_positions, begin
        embeddings = self.language_model.get_input_embeddings()
        self.width: int = embeddings.weight.shape[1]
        self.begin = nn.Parameter(embeddings(torch.tensor(begin)).detach().clone())
        self._is_fixed = not any(p.requires_grad for p in language_model.parameters())
        self._left_out = _left_out(language_model, is_kept=is_kept)
        hooks: Any = self  # torch declares no types for them
        hooks.register_state_dict_post_hook(_leave_out)
        hooks.register_load_state_dict_post_hook(_do_not_miss)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on, but never that of a language model that stays as it is."""
        super().train(mode)
        if self._is_fixed:
            self.language_model.eval()
        return self

    def keep_all(self) -> None:
        """Let the state of this module hold all of the language model."""
        self._left_out = _left_out(self.language_model, is_kept=True)

    def lay_out_for_decoding(self) -> None:
        """Do nothing: transformers lays out its weights as it likes."""

    def prefix(self, memory: Tensor) -> Tensor:
        """Return (B, L, E) for a (B, P, E) memory."""
        assert self.mapping is not None
        prefix: Tensor = self.mapping(memory)
        return prefix

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the (..., E) embeddings of tokens."""
        embedded: Tensor = self.language_model.get_input_embeddings()(tokens)
        return torch.where((tokens == self._begin).unsqueeze(-1), self.begin, embedded)

    def next_token_logits(self, memory: Tensor | None, batch: PackedBatch) -> Tensor:
        """Return (N, V) logits of the token after each input token."""
        (B, Q), L, slots = batch.image_shape, self.prefix_length, batch.image_slots
        table = spread(self.embed(batch.input_ids), slots, B * Q).view(B, Q, -1)
        if memory is not None:
            table = torch.cat([self.prefix(memory), table], 1)
        owners = torch.full((B * Q,), -1, device=slots.device).index_copy(0, slots, batch.caption_of_token).view(B, Q)
        positions = torch.zeros_like(owners).view(-1).index_copy(0, slots, batch.positions).view(B, Q) + L
        prefix_positions = torch.arange(L, device=slots.device).expand(B, L)
        sees = torch.ones(B, L + Q, L + Q, dtype=torch.bool, device=slots.device).tril()
        sees[:, L:, L:] &= owners.unsqueeze(2) == owners.unsqueeze(1)  # empty places see each other
        logits: Tensor = self.language_model(
            inputs_embeds=table,
            attention_mask=sees.unsqueeze(1),
            position_ids=torch.cat([prefix_positions, positions], 1),
            use_cache=False,
            logits_to_keep=Q,
        ).logits
        return logits[:, -Q:].reshape(B * Q, -1).index_select(0, slots)


def _left_out(language_model: nn.Module, *, is_kept: bool) -> set[str]:
    """Return the names of the tensors that the state is to lack: what is tied to another one, and what is read from elsewhere."""
    state = language_model.state_dict()
    parameters = dict(language_model.named_parameters())  # each once, under its first name
    tied = {name for name, _ in language_model.named_parameters(remove_duplicate=False)} - set(parameters)
    fixed = {name for name in state if not (name in parameters and parameters[name].requires_grad)}
    return {f"language_model.{name}" for name in (tied if is_kept else tied | fixed)}


def _leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    assert isinstance(module, LanguageModelDecoder)
    for name in module._left_out:
        state.pop(prefix + name, None)


def _do_not_miss(module: nn.Module, keys: Any) -> None:
    assert isinstance(module, LanguageModelDecoder)
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(tuple(module._left_out))]
