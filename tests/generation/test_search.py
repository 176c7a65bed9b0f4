"""Search: the cache equals the whole computation, beams find what exhaustive search finds, every switch does its one thing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from img2seq.config.decoding import Decoding
from img2seq.data.batch import collate
from img2seq.data.seeds import generator
from img2seq.data.tokenizer import BOS, EOS, MASK, PAD, SPECIAL_TOKENS, UNK, Tokenizer
from img2seq.errors import ConfigError
from img2seq.generation import logits as scores
from img2seq.generation import search as searching
from img2seq.generation.key_values import DecodingCache
from img2seq.generation.logits import sampling_probabilities
from img2seq.generation.model_step import ModelStep
from img2seq.generation.search import Hypothesis, _choose, _extend_beams, _Rows, _uniform_numbers
from img2seq.generation.torch_arrays import TorchArrays
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Decoder
from img2seq.model.packing import pack

GREEDY = Decoding(method="greedy", max_length=12)
BEAM = Decoding(method="beam", max_length=12)
SAMPLE = Decoding(method="sample", max_length=12)
SPECIAL = Tokenizer(SPECIAL_TOKENS, split_on=" ").special
TORCH = TorchArrays(torch.device("cpu"))


def search(
    decoder: Decoder, memory: torch.Tensor | None, settings: Decoding, *, n_images: int | None = None, **options: Any
) -> list[list[Hypothesis]]:
    return searching.search(ModelStep(decoder, memory, n_images=n_images), settings, SPECIAL, **options)


def allowed(logits: torch.Tensor, history: torch.Tensor, settings: Decoding, length: int) -> torch.Tensor:
    never = torch.tensor(SPECIAL.never_generated)
    table: torch.Tensor = scores.allowed(TORCH, logits, history[:, :length], settings, never=never, end=SPECIAL.end)
    return table


def model(
    vocabulary: int = 20, *, has_memory: bool = True, seed: int = 0, scale: float = 3.0, end_bias: float = 0.0
) -> CaptionModel:
    """Return a random decoder whose distributions are not flat."""
    torch.manual_seed(seed)
    decoder = Decoder(
        vocabulary=vocabulary, width=16, n_layers=2, n_heads=4, feedforward=32, dropout=0.1, position_dropout=0.1,
        position="encode", n_positions=16, has_memory=has_memory,
    )  # fmt: skip
    decoder.embedding.weight.data *= scale
    decoder.bias.data[EOS] = end_bias
    return CaptionModel({}, decoder).eval()


def memory(n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 5, 16, generator=torch.Generator().manual_seed(seed))


def packed_log_probabilities(decoder: Decoder, image: torch.Tensor | None, tokens: list[int]) -> torch.Tensor:
    """Return the (T + 1, V) log-probabilities of each next token by the uncached computation that training uses."""
    from img2seq.model.attention import PackedAttention

    line = [BOS, *tokens]
    batch = pack(collate(("x",), [[(line, [*tokens, EOS], 0)]]))
    kv = decoder.memory_keys_values(None if image is None else image.unsqueeze(0))
    logits = decoder.logits(
        decoder(batch.input_ids, batch.positions, PackedAttention(batch, decoder.n_heads, kv))
    ).detach()
    logits[:, [BOS, UNK, MASK, PAD]] = float("-inf")
    return logits.log_softmax(1)


def same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    assert [h.tokens for h in one] == [h.tokens for h in other]
    for a, b in zip(one, other, strict=True):
        assert a.log_probabilities == pytest.approx(b.log_probabilities, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        BEAM,
        replace(BEAM, n_best=5),
        replace(BEAM, beam_size=6, beam_groups=3, diversity=0.5, n_best=6),
        replace(SAMPLE, n_best=4),
    ],
    ids=["greedy", "beam", "n-best", "groups", "sample"],
)
@pytest.mark.parametrize("has_memory", [True, False])
def test_probabilities_of_the_cache_are_those_of_the_whole_computation(settings: Decoding, has_memory: bool) -> None:
    decoder = model(has_memory=has_memory).decoder
    images = memory() if has_memory else None
    for b, hypotheses in enumerate(search(decoder, images, settings, n_images=3)):
        for hypothesis in hypotheses:
            table = packed_log_probabilities(decoder, None if images is None else images[b], hypothesis.tokens)
            targets = [*hypothesis.tokens, EOS][: len(hypothesis.log_probabilities)]
            expected = [float(table[i, token]) for i, token in enumerate(targets)]
            assert hypothesis.log_probabilities == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [GREEDY, BEAM, replace(BEAM, beam_size=6, beam_groups=3, diversity=0.5, n_best=6), replace(SAMPLE, n_best=3)],
    ids=["greedy", "beam", "groups", "sample"],
)
def test_a_batch_equals_each_image_alone(settings: Decoding) -> None:
    decoder, images, names = model().decoder, memory(7), [f"im{i}" for i in range(7)]
    beginnings = [[], [7], [8, 9, 10], [], [6, 6], [5], []]
    together = search(decoder, images, settings, beginnings=beginnings, names=names)
    for b in range(7):
        same(together[b], search(decoder, images[b : b + 1], settings, beginnings=[beginnings[b]], names=[names[b]])[0])


@pytest.mark.parametrize(("n_rows", "group"), [(1, 1), (4, 1), (4, 4), (6, 3)])
def test_rows_that_change_places_attend_to_what_they_went_on_from(n_rows: int, group: int) -> None:
    """The store of a group against plain attention over each row's own keys and values, moved about with the row."""
    decoder, n_images, n_steps = model().decoder, 3, 7
    rng = torch.Generator().manual_seed(0)
    cache = DecodingCache(decoder, memory(3), n_images=3, n_rows=n_rows, group=group, max_tokens=n_steps)
    keys, values = torch.zeros(2, n_images * n_rows, 4, 0, 4).unbind(0)
    for step in range(n_steps):
        qkv = torch.randn(n_images * n_rows, 48, generator=rng)
        q, k, v = qkv.view(-1, 3, 4, 1, 4).unbind(1)
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        expected = F.scaled_dot_product_attention(q, keys, values).reshape(-1, 16)
        torch.testing.assert_close(cache.attend_to_caption(1, qkv), expected)
        cache.length += 1
        if group > 1:
            first = torch.arange(0, n_images * n_rows, group).unsqueeze(1)
            parents = (first + torch.randint(group, (len(first), group), generator=rng)).flatten()
            keys, values = keys[parents], values[parents]
            cache.keep_rows(parents)
        if step == 3:
            n_images = 2
            cache.keep_images(torch.tensor([0, 2]))
            keys, values = (x.view(3, n_rows, 4, -1, 4)[[0, 2]].flatten(0, 1) for x in (keys, values))


def test_beams_are_extended_by_the_best_of_all_their_continuations() -> None:
    rng = torch.Generator().manual_seed(0)
    B, W, V = 5, 4, 30
    log_probabilities = torch.randn(B * W, V, generator=rng).mul(3).log_softmax(1)
    log_probabilities[:, EOS] = float("-inf")
    scores = torch.randn(B, W, generator=rng)
    scores[::2, 1] += 20  # all that go on come from one beam
    rows = _Rows(
        TORCH, EOS, torch.arange(B), torch.zeros(B * W, 0).long(), torch.zeros(B * W, 0), [[] for _ in range(B)]
    )
    parents, tokens, found = _extend_beams(log_probabilities, scores, rows, replace(BEAM, beam_size=W))
    best = (scores.unsqueeze(2) + log_probabilities.view(B, W, V)).view(B, -1).topk(W, dim=1)
    assert torch.equal(found, best.values)
    assert (parents - torch.arange(B).repeat_interleave(W) * W).tolist() == (best.indices // V).flatten().tolist()
    assert tokens.tolist() == (best.indices % V).flatten().tolist()


@pytest.mark.parametrize("settings", [GREEDY, replace(BEAM, n_best=5), replace(SAMPLE, n_best=4)])
def test_a_layout_for_decoding_changes_no_caption_and_no_weight(settings: Decoding, speed_ups_on: None) -> None:
    plain, laid_out = model().decoder, model().decoder
    laid_out.lay_out_for_decoding()
    linear = [module for module in laid_out.modules() if isinstance(module, torch.nn.Linear)]
    assert all(module.weight.t().is_contiguous() for module in linear)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, laid_out.state_dict()[name])
    expected = search(plain, memory(20), settings)
    for one, other in zip(expected, search(laid_out, memory(20), settings), strict=True):
        same(one, other)


def test_one_beam_is_greedy() -> None:
    decoder, images = model().decoder, memory(20)
    one = search(decoder, images, replace(BEAM, beam_size=1))
    for greedy, beam in zip(search(decoder, images, GREEDY), one, strict=True):
        same(greedy, beam)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_wide_beams_find_what_exhaustive_search_finds(length_penalty: float) -> None:
    n_words, longest = 3, 4
    for seed in range(6):
        decoder = model(5 + n_words, seed=seed, scale=2.0, end_bias=1.0).decoder
        image = memory(1, seed)
        settings = Decoding(max_length=longest, beam_size=n_words ** (longest + 1), length_penalty=length_penalty)
        best = search(decoder, image, settings)[0][0]
        ranked = []
        for length in range(longest):  # captions that end within the greatest length
            for words in itertools.product(range(5, 5 + n_words), repeat=length):
                table = packed_log_probabilities(decoder, image[0], list(words))
                total = sum(float(table[i, token]) for i, token in enumerate([*words, EOS]))
                ranked.append((total / (length + 1) ** length_penalty, list(words)))
        score, expected = max(ranked)
        assert best.tokens == expected
        assert best.score == pytest.approx(score, abs=1e-4)


def test_a_better_caption_is_never_lost_to_a_narrower_search() -> None:
    decoder, images = model(end_bias=2.0).decoder, memory(10)
    wide = search(decoder, images, replace(BEAM, beam_size=12, length_penalty=0.0))
    greedy = search(decoder, images, replace(GREEDY, length_penalty=0.0))
    assert all(w[0].score >= g[0].score - 1e-4 for w, g in zip(wide, greedy, strict=True) if g[0].ended)


@pytest.mark.parametrize(
    "settings", [GREEDY, BEAM, replace(SAMPLE, n_best=5, temperature=3.0)], ids=["greedy", "beam", "sample"]
)
def test_control_tokens_are_never_emitted(settings: Decoding) -> None:
    decoder = model().decoder
    decoder.bias.data[[BOS, UNK, MASK, PAD]] = 50.0  # the model begs for them
    for hypotheses in search(decoder, memory(), settings):
        assert not {token for h in hypotheses for token in h.tokens} & {BOS, UNK, MASK, PAD, EOS}


def test_a_beginning_is_kept_and_not_scored() -> None:
    decoder, images = model().decoder, memory()
    for settings in (GREEDY, BEAM, SAMPLE):
        for hypotheses in search(decoder, images, settings, beginnings=[[7, 8]] * 3):
            assert hypotheses[0].tokens[:2] == [7, 8]
            assert hypotheses[0].log_probabilities[:2] == [0, 0]


def test_lengths_keep_their_bounds() -> None:
    decoder = model(end_bias=4.0).decoder
    for settings in (GREEDY, BEAM, SAMPLE):
        for hypotheses in search(decoder, memory(), replace(settings, min_length=6, max_length=8)):
            assert all(6 <= len(h.tokens) <= 8 for h in hypotheses)
    never_ends = model(end_bias=-50.0).decoder
    for settings in (GREEDY, BEAM, SAMPLE):
        for hypotheses in search(never_ends, memory(), replace(settings, max_length=5)):
            assert [len(h.tokens) for h in hypotheses] == [5]
            assert not hypotheses[0].ended


def test_no_ngram_comes_twice_where_that_is_asked_for() -> None:
    decoder = model(9, end_bias=-50.0).decoder
    plain = search(decoder, memory(), GREEDY)[0][0].tokens
    assert len(set(itertools.pairwise(plain))) < len(plain) - 1  # it does repeat itself when let alone
    for n in (1, 2, 3):
        for settings in (
            replace(GREEDY, no_repeat_ngram=n, max_length=4),
            replace(BEAM, beam_size=3, no_repeat_ngram=n, max_length=4),
        ):
            tokens = search(decoder, memory(), settings)[0][0].tokens
            grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            assert len(set(grams)) == len(grams)


def test_penalties_act_inside_their_windows_alone() -> None:
    logits = torch.tensor([[0.0] * 5 + [2.0, -2.0, 1.0, 1.0]])
    history = torch.tensor([[5, 6, 7, 7]])
    plain = allowed(logits.clone(), history, GREEDY, 4)
    repeated = allowed(
        logits.clone(), history, replace(GREEDY, repetition_penalty=2.0, repetition_penalty_max_window=2), 4
    )
    assert (repeated - plain)[0, 4:].tolist() == [0, 0, 0, -0.5, 0]
    repeated = allowed(logits.clone(), history, replace(GREEDY, repetition_penalty=2.0), 4)
    assert (repeated - plain)[0, 4:].tolist() == [0, -1.0, -2.0, -0.5, 0]
    frequent = allowed(logits.clone(), history, replace(GREEDY, frequency_penalty=0.5), 4)
    assert (frequent - plain)[0, 4:].tolist() == [0, -0.5, -0.5, -1.0, 0]
    frequent = allowed(
        logits.clone(), history, replace(GREEDY, frequency_penalty=0.5, frequency_penalty_max_window=1), 4
    )
    assert (frequent - plain)[0, 4:].tolist() == [0, 0, 0, -0.5, 0]


def over_vocabulary(logits: torch.Tensor, settings: Decoding) -> torch.Tensor:
    """Return the (R, V) probabilities that tokens are drawn with."""
    tokens, probabilities = sampling_probabilities(TORCH, logits, settings)
    return probabilities if tokens is None else torch.zeros_like(logits).scatter(1, tokens, probabilities)


def test_filters_keep_what_they_say() -> None:
    logits = torch.log(torch.tensor([[0.3, 0.4, 0.1, 0.2]]))

    def kept(**options: float) -> list[float]:
        row = over_vocabulary(logits, replace(SAMPLE, **options))[0, [1, 0, 3, 2]]  # type: ignore[arg-type]
        return [round(p, 4) for p in row.tolist()]

    assert kept() == [0.4, 0.3, 0.2, 0.1]
    assert kept(top_k=2) == [0.5714, 0.4286, 0, 0]
    assert kept(top_p=0.5) == [0.5714, 0.4286, 0, 0]
    assert kept(top_p=0.4) == [1, 0, 0, 0]
    assert kept(temperature=0.5) == [0.5333, 0.3, 0.1333, 0.0333]
    # entropy 1.28: surprises 0.92, 1.20, 1.61, 2.30 lie 0.36, 0.08, 0.33, 1.02 from it
    assert kept(tau=0.3) == [0, 1, 0, 0]
    assert kept(tau=0.45) == [0, 0.6, 0.4, 0]


def test_top_k_draws_what_it_would_draw_over_the_whole_vocabulary() -> None:
    rng = torch.Generator().manual_seed(0)
    log_probabilities = torch.randn(500, 40, generator=rng).mul(2).log_softmax(1)
    uniform = torch.rand(500, 1, 1, generator=rng)
    for options in ({}, {"top_p": 0.7}, {"tau": 0.6}, {"top_p": 0.8, "tau": 0.8}):
        settings = replace(SAMPLE, temperature=0.9, top_k=7, **options)  # type: ignore[arg-type]
        least = log_probabilities.topk(7, dim=1).values[:, -1:]
        masked = log_probabilities.masked_fill(log_probabilities < least, float("-inf"))
        drawn = _choose(TORCH, log_probabilities, uniform, torch.arange(500), 0, settings)
        assert torch.equal(drawn, _choose(TORCH, masked, uniform, torch.arange(500), 0, replace(settings, top_k=0)))


def test_the_greatest_number_draws_no_token_of_probability_0(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greatest:
        def random(self, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
            return np.full(shape, 1 - 2**-53)  # as float32: 1.0

    monkeypatch.setattr(searching, "generator", lambda *seed: Greatest())
    uniform = _uniform_numbers(SAMPLE, ["a"] * 300, 1, TORCH)
    assert uniform.max() < 1
    rng = torch.Generator().manual_seed(5)
    for options in ({}, {"top_k": 7}, {"top_p": 0.7}, {"tau": 0.6}):
        settings = replace(SAMPLE, **{"top_k": 0, "top_p": 1.0, "tau": 1.0, **options})  # type: ignore[arg-type]
        log_probabilities = torch.randn(300, 20, generator=rng).log_softmax(1)
        log_probabilities[:, -3:] = float("-inf")  # never generated
        drawn = _choose(TORCH, log_probabilities, uniform, torch.arange(300), 0, settings)
        chosen = over_vocabulary(log_probabilities, settings).gather(1, drawn.unsqueeze(1))
        assert chosen.min() > 0


def test_numbers_of_samples_stay_what_they_were() -> None:
    uniform = _uniform_numbers(replace(SAMPLE, seed=3), ["a", "b"], 4, TORCH)
    expected = [generator("sample", 3, name).random((4, SAMPLE.n_rows)).T for name in ("a", "b")]
    assert np.array_equal(uniform.numpy(), np.stack(expected).astype(np.float32))


def test_samples_come_as_often_as_their_probabilities_say() -> None:
    decoder = model(12, has_memory=False).decoder
    settings = replace(SAMPLE, max_length=1, n_best=4000, temperature=0.8, top_k=5)
    drawn = [h.tokens[0] if h.tokens else EOS for h in search(decoder, None, settings, n_images=1)[0]]
    expected = over_vocabulary(packed_log_probabilities(decoder, None, [])[:1], settings)[0].numpy()
    counts = np.bincount(drawn, minlength=12)
    assert counts[expected == 0].sum() == 0
    alive = expected > 0
    chi_square = ((counts[alive] - 4000 * expected[alive]) ** 2 / (4000 * expected[alive])).sum()
    assert chi_square < 18.5  # 4 degrees of freedom, p = 0.001


def test_a_seed_fixes_the_samples_and_another_changes_them() -> None:
    decoder = model(has_memory=False, scale=1.0).decoder

    def draw(seed: int) -> list[list[int]]:
        return [h.tokens for h in search(decoder, None, replace(SAMPLE, n_best=6, seed=seed), n_images=1)[0]]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_diverse_groups_say_different_things() -> None:
    decoder, images = model(scale=1.5, end_bias=1.0).decoder, memory(8)

    def first_words(diversity: float) -> float:
        settings = replace(BEAM, beam_size=4, beam_groups=4, diversity=diversity, n_best=4)
        found = search(decoder, images, settings)
        return float(np.mean([len({tuple(h.tokens) for h in hypotheses}) for hypotheses in found]))

    assert first_words(0.0) == 1.0  # without a penalty all groups find the same caption
    assert first_words(5.0) > 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beam_sise": 3}, "Did you mean 'beam_size'"),
        ({"top_p": 0}, "top_p: expected above 0"),
        ({"method": "greedy", "n_best": 2}, "n_best"),
        ({"beam_size": 4, "beam_groups": 3}, "divisor"),
    ],
)
def test_settings_out_of_range_are_one_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoding.of(values)


def test_the_score_is_the_log_probability_over_the_penalised_length() -> None:
    for hypotheses in search(model().decoder, memory(), replace(BEAM, length_penalty=0.7)):
        best = hypotheses[0]
        assert best.score == pytest.approx(best.log_probability / len(best.log_probabilities) ** 0.7)
        assert math.isfinite(best.score)
