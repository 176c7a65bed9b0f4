"""A decoder through ONNX Runtime: the search's captions, and their probabilities, are those of torch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_search import BEAM, GREEDY, SAMPLE, SPECIAL, memory, model, same

from img2seq.config.decoding import Decoding
from img2seq.generation.fast_decoder import fast_decoder
from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import OnnxDecoder, onnx_steps
from img2seq.generation.search import search
from img2seq.generation.side_by_side import search_side_by_side
from img2seq.model import onnx_decoder
from img2seq.model.decoder import Decoder

PLACES, IMAGES = 5, 6
SETTINGS = {
    "greedy": GREEDY,
    "beam": BEAM,
    "n-best": replace(BEAM, n_best=5, length_penalty=0.7),
    "groups": replace(BEAM, beam_size=6, beam_groups=3, diversity=0.5, n_best=6),
    "sample": replace(SAMPLE, n_best=4, top_p=0.9, temperature=0.8),
    "penalties": replace(BEAM, repetition_penalty=1.3, frequency_penalty=0.2, no_repeat_ngram=2, min_length=4),
}


@pytest.fixture(scope="module")
def pair() -> tuple[Decoder, OnnxDecoder]:
    decoder = model(end_bias=2.0).decoder
    runtime = fast_decoder(decoder, PLACES)
    assert runtime is not None
    return decoder, runtime


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@torch.inference_mode()
def test_it_writes_what_torch_writes(settings: Decoding, threads: int, pair: tuple[Decoder, OnnxDecoder]) -> None:
    decoder, runtime = pair
    images, names = memory(IMAGES), [f"image {n}" for n in range(IMAGES)]
    beginnings: list[list[int]] = [[], [7], [], [9, 8], [], []]
    expected = search(ModelStep(decoder, images), settings, SPECIAL, beginnings=beginnings, names=names)
    steps = onnx_steps(runtime, decoder.memory_by_layer(images))
    found = search_side_by_side(steps, settings, SPECIAL, names=names, beginnings=beginnings, threads=threads)
    assert len(found) == IMAGES
    for one, other in zip(expected, found, strict=True):
        same(one, other)


def test_a_graph_that_answers_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, real = model().decoder, onnx_decoder.decoder_graph

    def another(decoder: Decoder, *, merged: bool) -> bytes:
        other = model(seed=1).decoder
        return real(other, merged=merged)

    monkeypatch.setattr(onnx_decoder, "decoder_graph", another)
    assert fast_decoder(decoder, PLACES) is None
