"""Find captions: greedy, beam search and sampling, over whatever `Step` answers, in arrays of numpy or of torch.

Shapes: B images still being captioned, W rows of an image (beams or samples), R = B W, T tokens so far, V vocabulary.

A given beginning is forced token by token, so images with beginnings of any lengths share a batch without padding. An
image whose captions are done leaves the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from img2seq.config.decoding import Decoding
from img2seq.data.seeds import generator
from img2seq.data.tokenizer import SpecialTokens
from img2seq.errors import ConfigError
from img2seq.generation.arrays import OFF, Array, Arrays
from img2seq.generation.logits import allowed, sampling_probabilities
from img2seq.generation.step import Step

BELOW_ONE = 1 - 2**-24  # the greatest float32 below 1


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

    arrays: Arrays
    end: int  # the end token
    images: Array  # (B,) which image of the call each is
    tokens: Array  # (R, T)
    log_probabilities: Array  # (R, T)
    done: list[list[Hypothesis]] = field(default_factory=list)  # by image of the call

    def keep(self, rows: Array) -> None:
        """Go on from these rows, given as numbers or as true and false."""
        self.tokens, self.log_probabilities = self.tokens[rows], self.log_probabilities[rows]

    def write(self, tokens: Array, log_probabilities: Array) -> None:
        """Append a token to each row."""
        self.tokens = self.arrays.cat([self.tokens, tokens[:, None]])
        self.log_probabilities = self.arrays.cat([self.log_probabilities, log_probabilities[:, None]])


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
        ConfigError: if a beginning leaves no room for another token, or the model has fewer places than `min_length`.
    """
    if step.n_images == 0:
        return []
    beginnings = beginnings or [[]] * step.n_images
    max_tokens = min(settings.max_length, step.most_tokens)
    longest = max(map(len, beginnings))
    if longest >= max_tokens:
        raise ConfigError(f"beginning: expected fewer than {max_tokens} tokens (max_length), found {longest}")
    if settings.min_length > step.most_tokens:
        raise ConfigError(
            f"min_length: expected 0 to {step.most_tokens}, the longest caption this model can write; found {settings.min_length}"
        )
    names = names or [str(i) for i in range(step.n_images)]
    with step.arrays.computing(step.n_images * settings.n_rows):
        done = _search(step, settings, special, beginnings, names, max_tokens)
    return [sorted(found, key=lambda hypothesis: -hypothesis.score)[: settings.n_best] for found in done]


def _search(
    step: Step,
    settings: Decoding,
    special: SpecialTokens,
    beginnings: Sequence[Sequence[int]],
    names: Sequence[str],
    max_tokens: int,
) -> list[list[Hypothesis]]:
    """Return all captions that were found for each image."""
    B, W, arrays = step.n_images, settings.n_rows, step.arrays
    group = W // settings.beam_groups if settings.method == "beam" else 1
    step.begin(n_rows=W, group=group, max_tokens=max_tokens)
    never = arrays.array(special.never_generated)
    forced, uniform = _forced_tokens(beginnings, arrays), _uniform_numbers(settings, names, max_tokens, arrays)
    tokens, log_probabilities = arrays.full((B * W, 0), 0), arrays.full((B * W, 0), 0.0)
    rows = _Rows(arrays, special.end, arrays.arange(B), tokens, log_probabilities, [[] for _ in range(B)])
    scores = arrays.full((B, W), 0.0)
    if settings.method == "beam":
        scores[:] = OFF  # all beams of a group begin alike: only its first may go on
        scores[:, ::group] = 0
    last = arrays.full((B * W,), special.begin)

    for length in range(max_tokens):
        logits = allowed(arrays, step.next_logits(last), rows.tokens, settings, never=never, end=special.end)
        log_probabilities = arrays.log_softmax(logits)
        if length < forced.shape[1]:
            _force(arrays, log_probabilities, arrays.repeat(forced[rows.images, length], W))
        if settings.method == "beam":
            parents, last, scores = _extend_beams(log_probabilities, scores, rows, settings)
            step.keep_rows(parents)
            rows.keep(parents)
            rows.write(last, log_probabilities[parents, last])
        else:
            last = _choose(arrays, log_probabilities, uniform, rows.images, length, settings)
            rows.write(last, arrays.gather(log_probabilities, last[:, None])[:, 0])
        going_on = _unfinished_images(rows, scores, settings, length + 1)
        if not all(going_on):
            kept = arrays.array([place for place, goes_on in enumerate(going_on) if goes_on])
            if len(kept) == 0:
                break
            kept_rows = (kept[:, None] * W + arrays.arange(W)).reshape(-1)
            rows.keep(kept_rows)
            rows.images, scores, last = rows.images[kept], scores[kept], last[kept_rows]
            step.keep_images(kept)
    else:
        _cut_off(rows, scores, settings)
    return rows.done


def _forced_tokens(beginnings: Sequence[Sequence[int]], arrays: Arrays) -> Array:
    """Return (B, longest beginning) tokens, -1 where the search is free."""
    forced = np.full((len(beginnings), max(map(len, beginnings))), -1)
    for row, beginning in zip(forced, beginnings, strict=True):
        row[: len(beginning)] = beginning
    return arrays.array(forced)


def _force(arrays: Arrays, log_probabilities: Array, token: Array) -> None:
    """Leave only the forced token, as certain, in the rows whose beginning is not written yet: -1 in the others."""
    is_forced, place = token >= 0, token.clip(min=0)[:, None]
    value = arrays.where(is_forced[:, None], 0.0, arrays.gather(log_probabilities, place))
    log_probabilities[is_forced] = OFF
    arrays.scatter(log_probabilities, place, value)


# --- greedy and sampling: rows are independent --------------------------------------------------------------


def _uniform_numbers(settings: Decoding, names: Sequence[str], n: int, arrays: Arrays) -> Array:
    """Return (B, W, n) numbers, 0 <= u < 1, each image's own: its samples do not depend on its neighbours in the batch."""
    if settings.method != "sample":
        return arrays.full((0,), 0.0)
    table = [generator("sample", settings.seed, name).random((n, settings.n_rows)).T for name in names]
    # Rounded to float32 a number below 1 can become 1, which would draw a token of probability 0.
    return arrays.array(np.stack(table).astype(np.float32).clip(max=BELOW_ONE))


def _choose(
    arrays: Arrays, log_probabilities: Array, uniform: Array, images: Array, length: int, settings: Decoding
) -> Array:
    if settings.method == "greedy":
        return log_probabilities.argmax(1)
    tokens, probabilities = sampling_probabilities(arrays, log_probabilities, settings)
    cumulative = probabilities.cumsum(axis=1)
    threshold = uniform[images, :, length].reshape(-1, 1) * cumulative[:, -1:]
    places = (cumulative <= threshold).sum(1).clip(max=cumulative.shape[1] - 1)
    return places if tokens is None else arrays.gather(tokens, places[:, None])[:, 0]


# --- beam search ---------------------------------------------------------------------------------------------


def _extend_beams(
    log_probabilities: Array, scores: Array, rows: _Rows, settings: Decoding
) -> tuple[Array, Array, Array]:
    """Return (parents, tokens, scores) of the beams that go on: (R,), (R,), (B, W). Captions that end go to `rows.done`.

    Among the 2 W best continuations at least W do not end, for each beam ends in one way only. A continuation that ends
    counts as a caption only if it is among the W best.
    """
    arrays = rows.arrays
    B, W = scores.shape
    V = log_probabilities.shape[1]
    groups = settings.beam_groups
    width = W // groups
    grid = log_probabilities.reshape(B, W, V)
    penalty = arrays.full((B, V if settings.diversity else 0), 0.0)
    parents, tokens, new_scores = [], [], []
    for group in range(groups):
        beams = slice(group * width, (group + 1) * width)
        offered = (
            grid[:, beams] - settings.diversity * penalty[:, None] if group and settings.diversity else grid[:, beams]
        )
        # a beam gives no more than all beams are to give
        values, places = arrays.top_k(offered, min(2 * width, V))
        candidates = (scores[:, beams, None] + values).reshape(B, -1)
        value, best = arrays.top_k(candidates, min(2 * width, candidates.shape[1]))
        parent = best // values.shape[2] + group * width
        token = arrays.gather(places.reshape(B, -1), best)
        _finish(parent[:, :width], token[:, :width], value[:, :width], log_probabilities, rows, settings)
        # Move ends behind everything else, keeping the order; the first `width` are the beams that go on.
        order = arrays.argsort(token == rows.end)[:, :width]
        if (spare := width - order.shape[1]) > 0:  # a vocabulary smaller than the beam
            order = order[:, [*range(order.shape[1]), *[0] * spare]]
        value, token, parent = (arrays.gather(x, order) for x in (value, token, parent))
        value[token == rows.end] = OFF
        value[:, width - max(spare, 0) :] = OFF
        if settings.diversity:
            arrays.add_at(penalty, token, arrays.float32(value > OFF))
        parents.append(parent)
        tokens.append(token)
        new_scores.append(value)
    parent = arrays.cat(parents) + arrays.arange(B)[:, None] * W
    return parent.reshape(-1), arrays.cat(tokens).reshape(-1), arrays.cat(new_scores)


def _finish(
    parent: Array, token: Array, value: Array, log_probabilities: Array, rows: _Rows, settings: Decoding
) -> None:
    """Collect the continuations (B, N) that end a caption."""
    places, nth = rows.arrays.nonzero((token == rows.end) & (value > OFF))
    if len(places) == 0:
        return
    beams = places * settings.n_rows + parent[places, nth]
    images, last = rows.images[places].tolist(), log_probabilities[beams, rows.end].tolist()
    histories, earlier = rows.tokens[beams].tolist(), rows.log_probabilities[beams].tolist()
    for image, tokens, values, end in zip(images, histories, earlier, last, strict=True):
        values.append(end)
        score = _score(sum(values), len(values), settings)
        rows.done[image].append(Hypothesis(tokens, values, score, ended=True))


def _score(log_probability: float, length: int, settings: Decoding) -> float:
    penalty: float = length**settings.length_penalty
    return log_probability / penalty


def _unfinished_images(rows: _Rows, scores: Array, settings: Decoding, length: int) -> list[bool]:
    """Return which images go on; captions of greedy search and sampling that have ended are collected here.

    Beam search is done with an image when it has `beam_size` captions and no beam could still beat the worst of them, going
    by the beam's score at its present length. Without a length penalty that is exact, for scores only fall.
    """
    B, W = scores.shape
    if settings.method == "beam":
        going_on = []
        for image, of_beams in zip(rows.images.tolist(), scores.tolist(), strict=True):
            best, done = max(of_beams), rows.done[image]
            if best > OFF and len(done) >= W:
                worst = sorted((hypothesis.score for hypothesis in done), reverse=True)[W - 1]
                going_on.append(_score(best, length, settings) > worst)
            else:
                going_on.append(best > OFF)
        return going_on
    all_ended = (rows.tokens == rows.end).any(1).reshape(B, W).all(1)
    ended: list[bool] = all_ended.tolist()
    if any(ended):
        _collect(rows, rows.arrays.repeat(all_ended, W), settings)
    return [not is_over for is_over in ended]


def _collect(rows: _Rows, chosen: Array, settings: Decoding) -> None:
    """Take the captions of the chosen rows (R,), each up to its end token or as far as it came."""
    (chosen,) = rows.arrays.nonzero(chosen)
    images = rows.images[chosen // settings.n_rows].tolist()
    histories, values_of = rows.tokens[chosen].tolist(), rows.log_probabilities[chosen].tolist()
    for image, tokens, values in zip(images, histories, values_of, strict=True):
        if ended := rows.end in tokens:
            end = tokens.index(rows.end)
            tokens, values = tokens[:end], values[: end + 1]
        rows.done[image].append(Hypothesis(tokens, values, _score(sum(values), len(values), settings), ended))


def _cut_off(rows: _Rows, scores: Array, settings: Decoding) -> None:
    """Collect what was still being written at the greatest length; beams only where nothing has ended."""
    wanted = [settings.method != "beam" or len(rows.done[i]) < settings.n_best for i in rows.images.tolist()]
    _collect(rows, ((scores > OFF) & rows.arrays.array(wanted)[:, None]).reshape(-1), settings)
