"""What a decoding setting does to the logits of the next token. R rows, T tokens so far, V vocabulary."""

from __future__ import annotations

from img2seq.config.decoding import Decoding
from img2seq.generation.arrays import OFF, Array, Arrays


def allowed(arrays: Arrays, logits: Array, history: Array, settings: Decoding, *, never: Array, end: int) -> Array:
    """Return (R, V) logits without the tokens that must not come, and with repetitions made less likely.

    Args:
        arrays: of the logits.
        logits: (R, V), overwritten.
        history: (R, T) tokens of the captions so far, without the begin token.
        settings: see `Decoding`.
        never: tokens that must not be generated.
        end: the end token.
    """
    logits = arrays.float32(logits)
    logits[:, never] = OFF
    if history.shape[1] < settings.min_length:
        logits[:, end] = OFF
    if history.shape[1] == 0:
        return logits
    if settings.repetition_penalty != 1:
        recent = history[:, -settings.repetition_penalty_max_window :]
        chosen, by = arrays.gather(logits, recent), settings.repetition_penalty
        arrays.scatter(logits, recent, arrays.where(chosen > 0, chosen / by, chosen * by))
    if settings.frequency_penalty:
        arrays.add_at(logits, history[:, -settings.frequency_penalty_max_window :], -settings.frequency_penalty)
    if settings.no_repeat_ngram:
        _ban_repetitions(arrays, logits, history, settings.no_repeat_ngram)
    return logits


def _ban_repetitions(arrays: Arrays, logits: Array, history: Array, n: int) -> None:
    """Switch off the tokens that would complete an n-gram that stands in the row already, unless nothing else is left."""
    places = history.shape[1] - n + 1  # where an n-gram begins
    if places < 1:
        return
    same = history[:, n - 1 :] >= 0  # (R, places): does one that begins as the row ends begin here?
    for i in range(n - 1):
        same &= history[:, i : i + places] == history[:, places + i, None]
    rows, found = arrays.nonzero(same)
    banned = history[rows, found + n - 1]
    before = logits[rows, banned]
    logits[rows, banned] = OFF
    nothing_left = (logits == OFF).all(1)  # then a repetition is the lesser evil
    logits[rows, banned] = arrays.where(nothing_left[rows], before, OFF)


def sampling_probabilities(arrays: Arrays, logits: Array, settings: Decoding) -> tuple[Array | None, Array]:
    """Return (R, C) tokens to sample from, None where they are all of the vocabulary, and their (R, C) probabilities.

    Temperature, then top-k, top-p and typical, each on what is left. Tokens stay in the order of the vocabulary, so which
    one a number draws does not depend on whether top-k has taken the others out.
    """
    logits, tokens = logits / settings.temperature, None
    if 0 < settings.top_k < logits.shape[1]:
        tokens = arrays.top_k(logits, settings.top_k)[1]
        tokens = arrays.gather(tokens, arrays.argsort(tokens))
        logits = arrays.gather(logits, tokens)
    if settings.top_p < 1:
        probabilities = arrays.softmax(logits)
        _keep_until(arrays, logits, probabilities, arrays.argsort(-probabilities), settings.top_p)
    if settings.tau < 1:
        probabilities = arrays.softmax(logits)
        surprise = -arrays.log_softmax(logits + 0)
        entropy = arrays.where(probabilities > 0, probabilities * surprise, 0.0).sum(axis=1, keepdims=True)
        _keep_until(arrays, logits, probabilities, arrays.argsort(abs(surprise - entropy)), settings.tau)
    return tokens, arrays.softmax(logits)


def _keep_until(arrays: Arrays, logits: Array, probabilities: Array, order: Array, mass: float) -> None:
    """Keep tokens in order until they hold `mass`, the one that crosses it included; switch the others off."""
    in_order = arrays.gather(probabilities, order)
    before = in_order.cumsum(axis=1) - in_order
    arrays.scatter(logits, order, arrays.where(before < mass, arrays.gather(logits, order), OFF))
