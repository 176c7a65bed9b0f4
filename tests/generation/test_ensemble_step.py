"""Several models that are averaged: of one model they are that model; of two, the mean of their probabilities; torch and ONNX Runtime mix."""

from __future__ import annotations

import pytest
import torch
from test_onnx_step import IMAGES, PLACES, SETTINGS
from test_search import SPECIAL, memory, model, same

from img2seq.config.decoding import Decoding
from img2seq.generation.ensemble_step import EnsembleStep
from img2seq.generation.fast_decoder import fast_decoder
from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import onnx_steps
from img2seq.generation.search import Hypothesis, search
from img2seq.generation.step import Step
from img2seq.model.decoder import Decoder

NAMES = [f"image {n}" for n in range(IMAGES)]
BEGINNINGS: list[list[int]] = [[], [7], [], [9, 8], [], []]
WAYS = {"torch": ("torch",) * 2, "runtime": ("runtime",) * 3, "mixed": ("torch", "runtime"), "mixed again": ("runtime", "torch")}  # fmt: skip


@pytest.fixture(scope="module")
def decoders() -> list[Decoder]:
    return [model(end_bias=2.0, seed=seed).decoder for seed in range(2)]


def step_of(decoder: Decoder, way: str, images: torch.Tensor) -> Step:
    if way == "torch":
        return ModelStep(decoder, images)
    with torch.inference_mode():
        runtime = fast_decoder(decoder, PLACES)
        assert runtime is not None
        return onnx_steps(runtime, decoder.memory_by_layer(images))(slice(None))


def found(step: Step, settings: Decoding) -> list[list[Hypothesis]]:
    return search(step, settings, SPECIAL, beginnings=BEGINNINGS, names=NAMES)


@pytest.mark.parametrize("ways", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_of_one_model_several_times_it_is_that_model(
    settings: Decoding, ways: tuple[str, ...], decoders: list[Decoder]
) -> None:
    images = memory(IMAGES)
    expected = found(ModelStep(decoders[0], images), settings)
    ensemble = EnsembleStep([step_of(decoders[0], way, images) for way in ways])
    for one, other in zip(expected, found(ensemble, settings), strict=True):
        same(one, other)


@pytest.mark.parametrize(
    "ways", [("torch", "torch"), ("runtime", "runtime"), ("torch", "runtime"), ("runtime", "torch")]
)
def test_the_probabilities_of_two_models_are_averaged(ways: tuple[str, str], decoders: list[Decoder]) -> None:
    """Against the plain mean, in double precision, for tokens however unlikely; and each model has pictures of its own."""
    of_each = [memory(IMAGES, seed=n) for n in range(2)]
    single = [step_of(decoder, "torch", images) for decoder, images in zip(decoders, of_each, strict=True)]
    step = EnsembleStep([step_of(*given) for given in zip(decoders, ways, of_each, strict=True)])
    tokens = torch.arange(IMAGES * 2) % 7 + 5
    for one in (*single, step):
        one.begin(n_rows=2, group=1, max_tokens=4)
    with torch.inference_mode():
        for _ in range(3):
            logits = torch.stack([one.next_logits(tokens).double() for one in single])
            expected = logits.softmax(2).mean(0).log() + logits.logsumexp(2, keepdim=True).mean(0)
            answer = step.next_logits(step.arrays.array(tokens.numpy()))
            torch.testing.assert_close(torch.as_tensor(answer).double(), expected, atol=1e-4, rtol=1e-4)
            assert len(answer) == IMAGES * 2


def test_it_writes_as_much_as_the_least_of_its_models_can(decoders: list[Decoder]) -> None:
    long, short = (ModelStep(decoder, memory(1)) for decoder in decoders)
    short.most_tokens = 3
    (captions,) = search(EnsembleStep([long, short]), Decoding(method="greedy", max_length=12), SPECIAL)
    assert len(captions[0].tokens) <= 3
