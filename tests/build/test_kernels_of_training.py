"""Training has our convolutions, captioning torch's: the same weights, under the same names."""

from __future__ import annotations

from pathlib import Path

import torch

from img2seq.build.prepare import prepare
from img2seq.build.trained import load_run
from img2seq.config.load import load_config
from img2seq.model.caption_model import CaptionModel
from img2seq.model.cpu.convolution import Conv2d
from img2seq.model.cpu.dropout import Dropout
from img2seq.progress import Announcer


def ours(model: CaptionModel) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Conv2d)]


def test_training_has_our_convolutions_and_captioning_has_not(tiny: Path, finished_runs: tuple[Path, Path]) -> None:
    trained_with = prepare(load_config(tiny / "experiment.yaml"), Announcer(level="critical", bars=False)).model
    captioned_with = load_run(finished_runs[1]).model
    assert ours(trained_with)
    assert not ours(captioned_with)
    assert list(trained_with.state_dict()) == list(captioned_with.state_dict())


def test_training_draws_our_masks_and_captioning_draws_none(tiny: Path, finished_runs: tuple[Path, Path]) -> None:
    trained_with = prepare(load_config(tiny / "experiment.yaml"), Announcer(level="critical", bars=False)).model
    captioned_with = load_run(finished_runs[1]).model
    found = [
        {type(m) for m in model.modules() if "Dropout" in type(m).__name__} for model in (trained_with, captioned_with)
    ]
    assert found == [{Dropout}, {torch.nn.Dropout}]


def test_both_encode_alike(tiny: Path) -> None:
    trained_with = prepare(load_config(tiny / "experiment.yaml"), Announcer(level="critical", bars=False)).model.eval()
    pixels = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = trained_with.encoder("photo")
    with torch.inference_mode():
        fast = encoder(pixels)
        for name in ours(trained_with):
            parent, _, last = name.rpartition(".")
            trained_with.get_submodule(parent).get_submodule(last).__class__ = torch.nn.Conv2d
        plain = encoder(pixels)
    assert not ours(trained_with)
    torch.testing.assert_close(fast, plain, atol=1e-3, rtol=1e-3)
