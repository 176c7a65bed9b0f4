"""Schedule, optimisers, averages, checkpoints: each alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from img2seq.config.globals import LRSchedule, ModelOptions, Optimization
from img2seq.errors import RunError
from img2seq.model.caption_model import CaptionModel
from img2seq.run import checkpoint as checkpoints
from img2seq.run import save_checkpoint
from img2seq.run.snapshot import Snapshot
from img2seq.training.average import WeightAverage
from img2seq.training.optimizer import AdaBelief, build_optimizer
from img2seq.training.schedule import learning_rate, warmup_steps


def rates(n: int, schedule: dict[str, object], **optimization: float) -> list[float]:
    config, options = LRSchedule(**schedule), Optimization(**({"lr": 0.1} | optimization))  # type: ignore[arg-type]
    return [learning_rate(step, n, config, options) for step in range(1, n + 1)]


def test_automatic_warmup_fits_the_run() -> None:
    options = Optimization()
    assert [warmup_steps(LRSchedule(), options, n) for n in (100, 2_000, 1_000_000)] == [5, 100, 2000]


def test_warmup_is_a_line_and_cosine_ends_at_the_lower_bound() -> None:
    found = rates(100, {"lr_schedule": "cosine", "warmup_steps": 10}, lr_lb=0.01)
    assert found[:10] == pytest.approx([0.01 + 0.09 * i / 10 for i in range(1, 11)])
    assert found[-1] == pytest.approx(0.01)
    assert found[54] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 45 / 90)) / 2)


def test_a_cycle_rises_for_three_tenths() -> None:
    found = rates(100, {"lr_schedule": "cycle"})
    assert found.index(max(found)) == 29
    assert found[-1] == pytest.approx(0)


def test_plateau_falls_by_its_factor_and_not_below_the_bound() -> None:
    config, options = LRSchedule(warmup_steps=0, lr_plateau_factor=0.5), Optimization(lr=0.1, lr_lb=0.02)
    assert [learning_rate(5, 9, config, options, n_falls=n) for n in range(4)] == pytest.approx(
        [0.1, 0.05, 0.025, 0.02]
    )
    assert rates(5, {"lr_schedule": "same", "warmup_steps": 0}) == [0.1] * 5


@pytest.mark.parametrize("decoupled", [True, False])
def test_adabelief_is_the_algorithm_of_the_paper(decoupled: bool) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5))
    optimizer = AdaBelief([parameter], lr=0.1, betas=(0.9, 0.99), weight_decay=0.05, decoupled=decoupled)
    x, m, s = parameter.detach().clone().double(), torch.zeros(5).double(), torch.zeros(5).double()
    for t in range(1, 6):
        gradient = torch.randn(5)
        parameter.grad = gradient.clone()
        optimizer.step()
        g = gradient.double() if decoupled else gradient.double() + 0.05 * x
        if decoupled:
            x = x * (1 - 0.1 * 0.05)
        m = 0.9 * m + 0.1 * g
        s = 0.99 * s + 0.01 * (g - m) ** 2 + 1e-16
        x = x - 0.1 * (m / (1 - 0.9**t)) / ((s / (1 - 0.99**t)).sqrt() + 1e-16)
    torch.testing.assert_close(parameter.detach().double(), x, atol=1e-5, rtol=1e-5)


def test_adabelief_counts_the_steps_of_each_parameter() -> None:
    """A parameter whose gradients begin later is updated as if it were alone, whatever comes before it."""

    def trained(late: bool) -> torch.Tensor:
        early, parameter = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(4))
        optimizer = AdaBelief([early, parameter] if late else [parameter], lr=0.1, betas=(0.9, 0.99))
        for step in range(5):
            early.grad = torch.ones(3)
            parameter.grad = torch.linspace(-1, 1, 4) * step if step >= 2 else None
            optimizer.step()
        return parameter.detach()

    assert torch.equal(trained(late=True), trained(late=False))


class _TwoParts(CaptionModel):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.encoders = nn.ModuleDict({"photo": nn.Linear(3, 3)})
        self.decoder = nn.Linear(3, 3)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgdm", "adabelief", "adabeliefw"])
def test_every_optimizer_decays_matrices_alone_and_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = _TwoParts()
    optimizer = build_optimizer(model, Optimization(optimizer=name, lr=0.02, wd=0.1), {"encoders.photo.": 0.1})  # type: ignore[arg-type]
    groups = {
        (group["lr_factor"], group["weight_decay"]): sum(p.numel() for p in group["params"])
        for group in optimizer.param_groups
    }
    assert groups == {(0.1, 0.1): 9, (0.1, 0.0): 3, (1.0, 0.1): 9, (1.0, 0.0): 3}
    x, losses = torch.randn(16, 3), []
    for _ in range(30):
        loss = (model.decoder(model.encoders["photo"](x)) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_averages_are_those_of_their_definitions() -> None:
    model = _TwoParts()
    swa, ema = (
        WeightAverage(model, ModelOptions(n_iter_before_swa=2)),
        WeightAverage(model, ModelOptions(ema_decay=0.5)),
    )
    history = []
    for step in range(1, 6):
        with torch.no_grad():
            model.decoder.bias.fill_(float(step**2))
        history.append(float(step**2))
        swa.update(step)
        ema.update(step)
    assert float(swa.tensors["decoder.bias"][0]) == pytest.approx(sum(history[2:]) / 3)
    expected = history[0]
    for n, value in enumerate(history[1:], start=2):
        decay = min(0.5, n / (n + 9))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.tensors["decoder.bias"][0]) == pytest.approx(expected)
    with swa.applied():
        assert float(model.decoder.bias.detach()[0]) == pytest.approx(sum(history[2:]) / 3)
    assert float(model.decoder.bias.detach()[0]) == 25.0


def saved(folder: Path, step: int, loss: float | None = None) -> checkpoints.Checkpoint:
    weights, training = Snapshot({"w": torch.full((4,), float(step))}), Snapshot({"m": torch.zeros(2)})
    return save_checkpoint.save(folder, step, weights, training, {"valid_loss": loss})


def test_best_and_newest_are_kept_and_the_rest_removed(tmp_path: Path) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, 5.0)):
        saved(tmp_path, step, loss)
    assert checkpoints.best(tmp_path).step == 2
    save_checkpoint.prune(checkpoints.Checkpoint(tmp_path / "step-00000005"), 2, print)
    assert [c.step for c in checkpoints.all_checkpoints(tmp_path)] == [2, 3, 5]


@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "state.json"])
def test_one_flipped_bit_is_found_and_the_newest_valid_one_used(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1)
    path = saved(tmp_path, 2).path / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=name):
        checkpoints.verify(checkpoints.Checkpoint(path.parent))
    warnings: list[str] = []
    found = save_checkpoint.newest_valid(tmp_path, warnings.append)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with pytest.raises(RunError, match="not finite"):
        save_checkpoint.save(tmp_path, 2, Snapshot({"w": torch.tensor([1.0, float("nan")])}), Snapshot(), {})
    assert [c.step for c in checkpoints.all_checkpoints(tmp_path)] == [1]


def test_a_manifest_lists_every_file_but_itself(tmp_path: Path) -> None:
    folder = saved(tmp_path, 7).path
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted([*manifest["files"], "manifest.json"]) == sorted(p.name for p in folder.iterdir())
