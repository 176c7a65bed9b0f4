"""One search on two libraries: numpy and torch find the same captions, and numpy needs no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from img2seq.config.decoding import Decoding
from img2seq.data.tokenizer import EOS, SPECIAL_TOKENS, Tokenizer
from img2seq.errors import ConfigError
from img2seq.generation.arrays import OFF, Array, Arrays, NumpyArrays
from img2seq.generation.search import Hypothesis, _extend_beams, _Rows, search
from img2seq.generation.torch_arrays import TorchArrays

SPECIAL = Tokenizer(SPECIAL_TOKENS, split_on=" ").special
NUMPY, TORCH = NumpyArrays(), TorchArrays(torch.device("cpu"))
MOST_TOKENS = 14


def as_numpy(values: Array) -> Array:
    return values.numpy() if isinstance(values, torch.Tensor) else values


class RandomStep:
    """Random logits that depend on the image and on all tokens of the row so far, so that a row lost or moved is seen.

    Args:
        arrays: whose arrays it takes and gives.
        n_images: B.
        vocabulary: V.
        seed: of the logits.
        grain: logits are multiples of it: a great one makes equal ones.
        end: added to the logit of the end token.
    """

    def __init__(self, arrays: Arrays, n_images: int, *, vocabulary: int, seed: int, grain: float, end: float):
        self.arrays, self.n_images, self.most_tokens = arrays, n_images, MOST_TOKENS
        self.vocabulary, self.seed, self.grain, self.end = vocabulary, seed, grain, end

    def begin(self, *, n_rows: int, group: int, max_tokens: int) -> None:
        self.n_rows, self.states = n_rows, np.repeat(np.arange(self.n_images, dtype=np.uint64), n_rows)
        self.group = group

    def next_logits(self, tokens: Array) -> Array:
        assert len(tokens) == len(self.states)
        self.states = self.states * np.uint64(6364136223846793005) + as_numpy(tokens).astype(np.uint64) + np.uint64(1)
        rows = [np.random.default_rng([self.seed, int(state)]).normal(0, 2, self.vocabulary) for state in self.states]
        table = np.stack(rows)
        table[:, EOS] += self.end
        table = (np.round(table / self.grain) * self.grain).astype(np.float32)
        return table if isinstance(self.arrays, NumpyArrays) else torch.from_numpy(table)

    def keep_rows(self, rows: Array) -> None:
        assert (as_numpy(rows) // self.group == np.arange(len(self.states)) // self.group).all()
        self.states = self.states[as_numpy(rows)]

    def keep_images(self, images: Array) -> None:
        self.states = self.states.reshape(-1, self.n_rows)[as_numpy(images)].reshape(-1)


@st.composite
def decodings(draw: st.DrawFn) -> Decoding:
    method: Any = draw(st.sampled_from(["greedy", "beam", "sample"]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    beam_size = groups * draw(st.integers(1, 4))
    n_best = {"greedy": 1, "beam": draw(st.integers(1, beam_size)), "sample": draw(st.integers(1, 4))}[method]
    max_length = draw(st.integers(4, MOST_TOKENS + 2))
    window = st.integers(1, 6)
    return Decoding(
        method=method,
        max_length=max_length,
        min_length=draw(st.integers(0, 4)),
        beam_size=beam_size,
        beam_groups=groups,
        diversity=draw(st.sampled_from([0.0, 0.7])),
        length_penalty=draw(st.sampled_from([0.0, 0.7, 1.0, -0.5])),
        n_best=n_best,
        temperature=draw(st.sampled_from([1.0, 0.6, 1.7])),
        top_k=draw(st.sampled_from([0, 1, 3, 50])),
        top_p=draw(st.sampled_from([1.0, 0.5, 0.9])),
        tau=draw(st.sampled_from([1.0, 0.4, 0.8])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.5])),
        repetition_penalty_max_window=draw(window),
        frequency_penalty=draw(st.sampled_from([0.0, 0.4])),
        frequency_penalty_max_window=draw(window),
        no_repeat_ngram=draw(st.sampled_from([0, 0, 1, 2, 3])),
        seed=draw(st.integers(0, 3)),
    )


def found(arrays: Arrays, decoding: Decoding, beginnings: list[list[int]], **options: Any) -> list[list[Hypothesis]]:
    step = RandomStep(arrays, len(beginnings), **options)
    return search(step, decoding, SPECIAL, beginnings=beginnings, names=[f"im{i}" for i in range(len(beginnings))])


def same(ones: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert [(h.tokens, h.ended) for h in one] == [(h.tokens, h.ended) for h in other]
        for a, b in zip(one, other, strict=True):
            assert a.log_probabilities == pytest.approx(b.log_probabilities, abs=2e-6, rel=1e-6)
            assert a.score == pytest.approx(b.score, abs=1e-5, rel=1e-6)


@given(
    decoding=decodings(),
    vocabulary=st.sampled_from([6, 7, 9, 40, 700]),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    end=st.sampled_from([-3.0, 0.0, 2.0, 4.0]),
    seed=st.integers(0, 1000),
)
@examples(max_examples=300, deadline=None, derandomize=True)
def test_numpy_and_torch_find_the_same_captions(
    decoding: Decoding, vocabulary: int, lengths: list[int], end: float, seed: int
) -> None:
    beginnings = [[5] * length for length in lengths]
    options = {"vocabulary": vocabulary, "seed": seed, "grain": 2.0**-20, "end": end}
    same(found(NUMPY, decoding, beginnings, **options), found(TORCH, decoding, beginnings, **options))


@given(
    decoding=decodings(),
    vocabulary=st.sampled_from([6, 40, 700]),
    lengths=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@examples(max_examples=150, deadline=None, derandomize=True)
def test_of_equal_logits_the_first_token_comes_first(
    decoding: Decoding, vocabulary: int, lengths: list[int], seed: int
) -> None:
    """Whole numbers as logits: most rows hold equal ones. Where mass decides (top_p, tau) rounding may, so it is left out."""
    decoding = replace(decoding, top_p=1.0, tau=1.0, temperature=1.0, diversity=0.0)
    options = {"vocabulary": vocabulary, "seed": seed, "grain": 1.0, "end": 0.0}
    beginnings = [[5] * length for length in lengths]
    same(found(NUMPY, decoding, beginnings, **options), found(TORCH, decoding, beginnings, **options))


def table(rows: int, columns: int, seed: int, *, kinds: int | None = None) -> Array:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, kinds, (rows, columns)) if kinds else rng.normal(0, 3, (rows, columns))
    return values.astype(np.float32)


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize(("columns", "k"), [(3, 2), (3, 3), (50, 10), (700, 10), (2550, 10), (2550, 1), (2551, 2000)])
@pytest.mark.parametrize("kinds", [None, 1, 3, 400])
def test_the_greatest_come_first_and_of_equal_ones_the_first(
    arrays: Arrays, columns: int, k: int, kinds: int | None
) -> None:
    values = table(12, columns, 0, kinds=kinds)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    greatest, places = arrays.top_k(arrays.array(values), k)
    assert np.array_equal(as_numpy(places), expected)
    assert np.array_equal(as_numpy(greatest), np.take_along_axis(values, expected, 1))
    in_three = arrays.array(values).reshape(3, 4, columns)
    assert np.array_equal(as_numpy(arrays.top_k(in_three, k)[1]), expected.reshape(3, 4, k))


def test_rows_with_fewer_finite_values_give_them_first() -> None:
    values = table(6, 800, 0)
    values[0] = OFF
    values[1, 1:] = OFF
    values[2, :790] = OFF
    values[3, ::2] = OFF
    values[4] = np.nan  # a broken model: nothing is right, nothing falls over
    for arrays in (NUMPY, TORCH):
        greatest, places = (as_numpy(x) for x in arrays.top_k(arrays.array(values), 20))
        assert np.array_equal(np.take_along_axis(values, places, 1), greatest, equal_nan=True)
        for row in (0, 1, 2, 3, 5):
            assert np.array_equal(greatest[row], -np.sort(-values[row])[:20])
            assert len(set(places[row].tolist())) == 20


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_sorting_keeps_equal_values_in_order(arrays: Arrays) -> None:
    values = table(5, 3000, 1)
    values[1] = table(1, 3000, 1, kinds=5)
    values[2, ::3], values[2, 1::3] = 0.0, -0.0
    values[3, :2000] = np.inf
    values[4, 5:2000] = OFF
    assert np.array_equal(as_numpy(arrays.argsort(arrays.array(values))), values.argsort(axis=1, kind="stable"))
    assert as_numpy(arrays.argsort(arrays.array(np.array([[True, False, True, False]])))).tolist() == [[1, 3, 0, 2]]


def test_probabilities_are_torchs() -> None:
    logits = table(64, 5000, 2) * 4
    logits[:, 3] = OFF
    with np.errstate(all="ignore"):
        ours, theirs = NUMPY.log_softmax(logits.copy()), torch.from_numpy(logits).log_softmax(1).numpy()
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(NUMPY.softmax(logits), np.exp(theirs), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_half_precision_logits_are_taken(method: str) -> None:
    class Half(RandomStep):
        def next_logits(self, tokens: Array) -> Array:
            return super().next_logits(tokens).astype(np.float16)

    settings = Decoding.of({"method": method, "max_length": 8})
    step = Half(NUMPY, 3, vocabulary=50, seed=0, grain=0.25, end=0.0)  # exact in half precision
    names = ["im0", "im1", "im2"]
    same(
        search(step, settings, SPECIAL, names=names),
        found(NUMPY, settings, [[]] * 3, vocabulary=50, seed=0, grain=0.25, end=0.0),
    )


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_only_beams_that_are_alive_count_for_diversity(arrays: Arrays) -> None:
    table = np.full((4, 9), OFF, np.float32)
    table[:, 5] = -3.0  # all that the first group can say; its second beam says something impossible
    table[2, :5] = -1.0  # of which the first beam of the second group can say each
    rows = _Rows(arrays, EOS, arrays.arange(1), arrays.full((4, 0), 0), arrays.full((4, 0), 0.0), [[]])
    scores = arrays.array(np.array([[0, OFF, 0, OFF]], np.float32))
    settings = Decoding(beam_size=4, beam_groups=2, diversity=0.5)
    _, tokens, after = _extend_beams(arrays.array(table), scores, rows, settings)
    assert after.tolist() == [[-3, OFF, -1, -1]]
    assert tokens.tolist()[2:] == [0, 1]


def test_a_beginning_that_is_too_long_is_an_error_in_both() -> None:
    for arrays in (NUMPY, TORCH):
        with pytest.raises(ConfigError, match="expected fewer than 3 tokens"):
            found(arrays, Decoding(max_length=3), [[5, 5, 5]], vocabulary=9, seed=0, grain=0.1, end=0.0)


def test_a_search_on_numpy_imports_no_torch() -> None:
    code = "import sys\nfrom img2seq.generation import arrays, logits, search, step\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
