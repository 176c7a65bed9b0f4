"""ONNX Runtime gives torch's features."""

from __future__ import annotations

import pytest
import torch

from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate

pytest.importorskip("onnxruntime", reason="needs img2seq[fast]")
pytestmark = pytest.mark.usefixtures("speed_ups_on")


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [("resnet18", 64, {"zero_init_last": False}), ("tf_efficientnet_lite0", 96, {}), ("vit_tiny_patch16_224", 32, {})],
)
def test_features_are_those_of_torch(name: str, size: int, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    encoder = ImageEncoder(name, height=size, width=size, mean=mean, std=std, options=options).eval()
    pixels = torch.randint(256, (3, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = encoder(pixels)
    assert accelerate(encoder)
    assert encoder.runtime is not None
    with torch.inference_mode():
        found = encoder(pixels)
        alone = encoder(pixels[1:2])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    torch.testing.assert_close(alone[0], found[1], rtol=1e-4, atol=1e-4)
    assert not torch.equal(found[0], found[1])


def test_a_batch_cut_over_threads_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ImageEncoder("test_resnet", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3).eval()
    pixels = torch.randint(256, (21, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with torch.inference_mode():
        expected = encoder(pixels)
        assert accelerate(encoder)
        for n in (1, 2, 3, 16, 21):
            torch.testing.assert_close(encoder(pixels[:n]), expected[:n], rtol=1e-3, atol=1e-3)


def test_training_stays_with_torch() -> None:
    encoder = ImageEncoder("resnet18", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3).eval()
    assert accelerate(encoder)
    encoder.runtime = lambda pixels: pytest.fail("the runtime has no gradients")
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert encoder(pixels).requires_grad  # evaluation mode with gradients
    with torch.no_grad():
        encoder.train()(pixels)


def test_a_model_that_cannot_be_exported_stays_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ImageEncoder("resnet18", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3).eval()

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert not accelerate(encoder)
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 1, 512)


def test_an_export_that_fails_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter prints the whole graph, thousands of lines of it, also where that was switched off."""
    encoder = ImageEncoder("resnet18", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3).eval()
    forward, printed = encoder.forward, []
    encoder.forward = lambda pixels: torch.linalg.lu_factor(forward(pixels))[0]  # type: ignore[method-assign]
    monkeypatch.setattr(torch._C, "_jit_onnx_log", lambda *words: printed.append(words))
    assert not accelerate(encoder)
    assert not printed
