"""What a decoding setting does to the logits of the next token. R rows, T tokens so far, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from img2seq.generation.settings import Decoding

OFF = float("-inf")


def allowed(logits: Tensor, history: Tensor, settings: Decoding, *, never: Tensor, end: int) -> Tensor:
    """Return (R, V) logits without the tokens that must not come, and with repetitions made less likely.

    Args:
        logits: (R, V).
        history: (R, T) tokens of the captions so far, without the begin token.
        settings: see `Decoding`.
        never: tokens that must not be generated.
        end: the end token.
    """
    logits = logits.float().index_fill_(1, never, OFF)
    if history.shape[1] < settings.min_length:
        logits[:, end] = OFF
    if history.shape[1] == 0:
        return logits
    if settings.repetition_penalty != 1:
        recent = history[:, -settings.repetition_penalty_max_window :]
        chosen = logits.gather(1, recent)
        chosen = torch.where(chosen > 0, chosen / settings.repetition_penalty, chosen * settings.repetition_penalty)
        logits = logits.scatter(1, recent, chosen)
    if settings.frequency_penalty:
        recent = history[:, -settings.frequency_penalty_max_window :]
        counts = torch.zeros_like(logits).scatter_add_(1, recent, torch.ones_like(recent, dtype=logits.dtype))
        logits = logits - settings.frequency_penalty * counts
    if settings.no_repeat_ngram:
        without = logits.masked_fill(_would_repeat(history, settings.no_repeat_ngram, logits.shape[1]), OFF)
        nothing_left = (without == OFF).all(1, keepdim=True)  # then a repetition is the lesser evil
        logits = torch.where(nothing_left, logits, without)
    return logits


def _would_repeat(history: Tensor, n: int, vocabulary: int) -> Tensor:
    """Return (R, V): which tokens would complete an n-gram that stands in the row already."""
    R, T = history.shape
    banned = torch.zeros(R, vocabulary, dtype=torch.bool, device=history.device)
    if n > T:
        return banned
    if n == 1:
        return banned.scatter(1, history, True)
    windows = history.unfold(1, n, 1)  # (R, T - n + 1, n)
    same = (windows[:, :, :-1] == history[:, None, T - n + 1 :]).all(dim=2)
    rows, places = same.nonzero(as_tuple=True)
    banned[rows, windows[rows, places, -1]] = True
    return banned


def sampling_probabilities(logits: Tensor, settings: Decoding) -> tuple[Tensor | None, Tensor]:
    """Return (R, C) tokens to sample from, None where they are all of the vocabulary, and their (R, C) probabilities.

    Temperature, then top-k, top-p and typical, each on what is left. Tokens stay in the order of the vocabulary, so which
    one a number draws does not depend on whether top-k has taken the others out.
    """
    logits, tokens = logits / settings.temperature, None
    if 0 < settings.top_k < logits.shape[1]:
        tokens = logits.topk(settings.top_k, dim=1, sorted=False).indices.sort(1).values
        logits = logits.gather(1, tokens)
    if settings.top_p < 1:
        probabilities = logits.softmax(1)
        logits = _keep_until(logits, probabilities, probabilities.sort(1, descending=True).indices, settings.top_p)
    if settings.tau < 1:
        probabilities = logits.softmax(1)
        surprise = -logits.log_softmax(1)
        entropy = (probabilities * surprise.nan_to_num(posinf=0.0)).sum(1, keepdim=True)
        order = (surprise - entropy).abs().sort(1).indices
        logits = _keep_until(logits, probabilities, order, settings.tau)
    return tokens, logits.softmax(1)


def _keep_until(logits: Tensor, probabilities: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keep tokens in order until they hold `mass`, the one that crosses it included."""
    sorted_probabilities = probabilities.gather(1, order)
    before = sorted_probabilities.cumsum(1) - sorted_probabilities
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= mass)
    return logits.masked_fill(drop, OFF)
