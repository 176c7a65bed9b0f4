"""Find captions: greedy, beam search and sampling, over whatever `Step` answers.

Shapes: B images still being captioned, W rows of an image (beams or samples), R = B W, T tokens so far, V vocabulary.

A given beginning is forced token by token, so images with beginnings of any lengths share a batch without padding. An
image whose captions are done leaves the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from img2seq.config.decoding import Decoding
from img2seq.data.seeds import generator
from img2seq.data.tokenizer import SpecialTokens
from img2seq.errors import ConfigError
from img2seq.generation.logits import OFF, allowed, sampling_probabilities
from img2seq.generation.step import Step


@dataclass(frozen=True)
class Hypothesis:
    """A caption as tokens.

    Attributes:
        tokens: without begin and end, a given beginning included.
        log_probabilities: of each token as the model gives it among the tokens that may be emitted, that of the end token
            last where the caption ended; 0 for the tokens of a given beginning.
        score: what captions of an image are ranked by.
        ended: whether the end token came, or the caption was cut at the greatest length.
    """

    tokens: list[int]
    log_probabilities: list[float]
    score: float
    ended: bool

    @property
    def log_probability(self) -> float:
        return sum(self.log_probabilities)


@dataclass
class _Rows:
    """What has been chosen so far for the images still in the batch."""

    end: int  # the end token
    images: Tensor  # (B,) which image of the call each is
    tokens: Tensor  # (R, T)
    log_probabilities: Tensor  # (R, T)
    done: list[list[Hypothesis]] = field(default_factory=list)  # by image of the call

    def keep(self, rows: Tensor) -> None:
        """Go on from these rows, given as numbers or as true and false."""
        self.tokens, self.log_probabilities = self.tokens[rows], self.log_probabilities[rows]

    def write(self, tokens: Tensor, log_probabilities: Tensor) -> None:
        """Append a token to each row."""
        self.tokens = torch.cat([self.tokens, tokens.unsqueeze(1)], 1)
        self.log_probabilities = torch.cat([self.log_probabilities, log_probabilities.unsqueeze(1)], 1)


@torch.inference_mode()
def search(
    step: Step,
    settings: Decoding,
    special: SpecialTokens,
    *,
    beginnings: Sequence[Sequence[int]] | None = None,
    names: Sequence[str] | None = None,
) -> list[list[Hypothesis]]:
    """Return the captions of each image, best first.

    Args:
        step: tells the next token's scores, for images of its own.
        settings: how to search.
        special: tokens of the vocabulary that are no words.
        beginnings: tokens that each image's captions begin with.
        names: of the images; what makes their samples differ. Their places by default.

    Raises:
        ConfigError: if a beginning leaves no room for another token.
    """
    B, W, device = step.n_images, settings.n_rows, step.device
    if B == 0:
        return []
    beginnings = beginnings or [[]] * B
    forced = _forced_tokens(beginnings, device)
    max_tokens = min(settings.max_length, step.most_tokens)
    if forced.shape[1] >= max_tokens:
        raise ConfigError(f"beginning: expected fewer than {max_tokens} tokens (max_length), found {forced.shape[1]}")
    if settings.min_length > step.most_tokens:
        raise ConfigError(
            f"min_length: expected 0 to {step.most_tokens}, what the model knows; found {settings.min_length}"
        )
    group = W // settings.beam_groups if settings.method == "beam" else 1
    step.begin(n_rows=W, group=group, max_tokens=max_tokens)
    never = torch.tensor(special.never_generated, device=device)
    uniform = _uniform_numbers(settings, names or [str(i) for i in range(B)], max_tokens, device)
    empty = torch.zeros(B * W, 0, device=device)
    rows = _Rows(special.end, torch.arange(B, device=device), empty.long(), empty, [[] for _ in range(B)])
    scores = torch.zeros(B, W, device=device)
    if settings.method == "beam":
        scores[:] = OFF  # all beams of a group begin alike: only its first may go on
        scores[:, ::group] = 0
    last = torch.full((B * W,), special.begin, device=device)

    for length in range(max_tokens):
        logits = allowed(step.next_logits(last), rows.tokens, settings, never=never, end=special.end)
        log_probabilities = logits.log_softmax(1)
        log_probabilities = _force(log_probabilities, forced, rows.images, length, W)
        if settings.method == "beam":
            parents, last, scores = _extend_beams(log_probabilities, scores, rows, settings)
            step.keep_rows(parents)
            rows.keep(parents)
            rows.write(last, log_probabilities[parents, last])
        else:
            last = _choose(log_probabilities, uniform, rows.images, length, settings)
            rows.write(last, log_probabilities.gather(1, last.unsqueeze(1)).squeeze(1))
        going_on = _unfinished_images(rows, scores, settings, length + 1)
        if not going_on.all():
            kept = going_on.nonzero().squeeze(1)
            if len(kept) == 0:
                break
            kept_rows = going_on.repeat_interleave(W)
            rows.keep(kept_rows)
            rows.images, scores, last = rows.images[kept], scores[kept], last[kept_rows]
            step.keep_images(kept)
    else:
        _cut_off(rows, scores, settings)
    n_best = settings.n_best
    return [sorted(done, key=lambda hypothesis: -hypothesis.score)[:n_best] for done in rows.done]


def _forced_tokens(beginnings: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return (B, longest beginning) tokens, -1 where the search is free."""
    longest = max(len(beginning) for beginning in beginnings)
    return torch.tensor(
        [[*beginning, *[-1] * (longest - len(beginning))] for beginning in beginnings], device=device
    ).view(len(beginnings), longest)


def _force(log_probabilities: Tensor, forced: Tensor, images: Tensor, length: int, W: int) -> Tensor:
    """Leave only the forced token, as certain, in the rows whose beginning is not written yet."""
    if length >= forced.shape[1]:
        return log_probabilities
    token = forced[images, length].repeat_interleave(W)
    only = torch.full_like(log_probabilities, OFF).scatter(1, token.clamp(min=0).unsqueeze(1), 0.0)
    return torch.where((token >= 0).unsqueeze(1), only, log_probabilities)


# --- greedy and sampling: rows are independent --------------------------------------------------------------


def _uniform_numbers(settings: Decoding, names: Sequence[str], n: int, device: torch.device) -> Tensor:
    """Return (B, W, n) numbers in 0..1, each image's its own: its samples do not depend on its neighbours in the batch."""
    if settings.method != "sample":
        return torch.empty(0)
    table = [generator("sample", settings.seed, name).random((n, settings.n_rows)).T for name in names]
    return torch.from_numpy(np.stack(table)).to(device, torch.float32)


def _choose(log_probabilities: Tensor, uniform: Tensor, images: Tensor, length: int, settings: Decoding) -> Tensor:
    if settings.method == "greedy":
        return log_probabilities.argmax(1)
    tokens, probabilities = sampling_probabilities(log_probabilities, settings)
    cumulative = probabilities.cumsum(1)
    threshold = uniform[images, :, length].reshape(-1, 1) * cumulative[:, -1:]
    places = (cumulative <= threshold).sum(1, keepdim=True).clamp(max=cumulative.shape[1] - 1)
    return (places if tokens is None else tokens.gather(1, places)).squeeze(1)


# --- beam search ---------------------------------------------------------------------------------------------


def _extend_beams(
    log_probabilities: Tensor, scores: Tensor, rows: _Rows, settings: Decoding
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (parents, tokens, scores) of the beams that go on: (R,), (R,), (B, W). Captions that end go to `rows.done`.

    Among the 2 W best continuations at least W do not end, for each beam ends in one way only. A continuation that ends
    counts as a caption only if it is among the W best.
    """
    B, W = scores.shape
    V = log_probabilities.shape[1]
    groups = settings.beam_groups
    width = W // groups
    grid = log_probabilities.view(B, W, V)
    penalty = torch.zeros(B, 1, V, device=scores.device)
    parents, tokens, new_scores = [], [], []
    for group in range(groups):
        beams = slice(group * width, (group + 1) * width)
        offered = grid[:, beams] - settings.diversity * penalty if group and settings.diversity else grid[:, beams]
        of_each = offered.topk(min(2 * width, V), dim=2)  # a beam gives no more than all beams are to give
        candidates = (scores[:, beams, None] + of_each.values).view(B, -1)
        best = candidates.topk(min(2 * width, candidates.shape[1]), dim=1)
        parent = best.indices // of_each.values.shape[2] + group * width
        token = of_each.indices.view(B, -1).gather(1, best.indices)
        _finish(parent, token, best.values, grid, rows, settings, width)
        # Move ends behind everything else, keeping the order; the first `width` are the beams that go on.
        order = (token == rows.end).to(torch.int8).sort(dim=1, stable=True).indices[:, :width]
        token, parent = token.gather(1, order), parent.gather(1, order)
        value = best.values.gather(1, order).masked_fill(token == rows.end, OFF)
        if token.shape[1] < width:  # a vocabulary smaller than the beam
            spare = width - token.shape[1]
            token, parent = (torch.cat([x, x[:, :1].expand(B, spare)], 1) for x in (token, parent))
            value = torch.cat([value, value.new_full((B, spare), OFF)], 1)
        penalty.scatter_add_(2, token.unsqueeze(1), torch.ones(B, 1, width, device=scores.device))
        parents.append(parent)
        tokens.append(token)
        new_scores.append(value)
    parent = torch.cat(parents, 1) + torch.arange(B, device=scores.device).unsqueeze(1) * W
    return parent.flatten(), torch.cat(tokens, 1).flatten(), torch.cat(new_scores, 1)


def _finish(
    parent: Tensor, token: Tensor, value: Tensor, grid: Tensor, rows: _Rows, settings: Decoding, width: int
) -> None:
    ends = ((token == rows.end) & (value > OFF))[:, :width].nonzero().tolist()
    W = grid.shape[1]
    for b, place in ends:
        beam = int(parent[b, place])
        history = rows.tokens[b * W + beam].tolist()
        log_probabilities = [*rows.log_probabilities[b * W + beam].tolist(), float(grid[b, beam, rows.end])]
        score = _score(sum(log_probabilities), len(log_probabilities), settings)
        rows.done[int(rows.images[b])].append(Hypothesis(history, log_probabilities, score, ended=True))


def _score(log_probability: float, length: int, settings: Decoding) -> float:
    penalty: float = length**settings.length_penalty
    return log_probability / penalty


def _unfinished_images(rows: _Rows, scores: Tensor, settings: Decoding, length: int) -> Tensor:
    """Return (B,) which images go on; captions of greedy search and sampling that have ended are collected here.

    Beam search is done with an image when it has `beam_size` captions and no beam could still beat the worst of them, going
    by the beam's score at its present length. Without a length penalty that is exact, for scores only fall.
    """
    B, W = scores.shape
    if settings.method == "beam":
        going_on = []
        for image, best in zip(rows.images.tolist(), scores.max(1).values.tolist(), strict=True):
            done = sorted((hypothesis.score for hypothesis in rows.done[image]), reverse=True)[:W]
            going_on.append(best > OFF and (len(done) < W or _score(best, length, settings) > done[-1]))
        return torch.tensor(going_on, device=scores.device)
    ended = (rows.tokens == rows.end).view(B, W, -1).any(2)
    all_ended = ended.all(1)
    for b in all_ended.nonzero().flatten().tolist():
        for row in range(b * W, (b + 1) * W):
            rows.done[int(rows.images[b])].append(_hypothesis(rows, row, settings))
    return ~all_ended


def _hypothesis(rows: _Rows, row: int, settings: Decoding) -> Hypothesis:
    """Return a row's caption, up to its end token or as far as it came."""
    tokens, log_probabilities = rows.tokens[row].tolist(), rows.log_probabilities[row].tolist()
    ended = rows.end in tokens
    if ended:
        end = tokens.index(rows.end)
        tokens, log_probabilities = tokens[:end], log_probabilities[: end + 1]
    return Hypothesis(
        tokens, log_probabilities, _score(sum(log_probabilities), len(log_probabilities), settings), ended
    )


def _cut_off(rows: _Rows, scores: Tensor, settings: Decoding) -> None:
    """Collect what was still being written at the greatest length; beams only where nothing has ended."""
    W = scores.shape[1]
    for b, image in enumerate(rows.images.tolist()):
        if settings.method != "beam" or len(rows.done[image]) < settings.n_best:
            for row in range(W):
                if scores[b, row] > OFF:
                    rows.done[image].append(_hypothesis(rows, b * W + row, settings))
