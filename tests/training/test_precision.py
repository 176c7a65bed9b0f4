"""Mixed precision in one process: what a gradient does that is too large for float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from img2seq.config.load import ConfigFiles, load
from img2seq.errors import ModelError
from img2seq.model.caption_model import CaptionModel
from img2seq.run import checkpoint as checkpoints
from img2seq.run.folder import RunFolder
from img2seq.run.tables import read_table
from img2seq.training.loop import train
from img2seq.training.objective import CrossEntropy

OVERFLOWS_AT = 3


@pytest.fixture
def overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one step have an ordinary loss with a gradient whose square is beyond all numbers."""
    real, calls = CrossEntropy.loss_sum, []

    def steep(objective: CrossEntropy, model: CaptionModel, batch: Any) -> torch.Tensor:
        loss = real(objective, model, batch)
        calls.append(batch)
        return loss + (1e35 * loss - (1e35 * loss).detach()) if len(calls) == OVERFLOWS_AT else loss

    monkeypatch.setattr(CrossEntropy, "loss_sum", steep)


def run_of(folder: Path, precision: str) -> RunFolder:
    overrides = [f"globals.accelerator.precision={precision}", "outputs.captions.sampling_config.n_eval_inputs=0"]
    return train(load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides))


@pytest.mark.parametrize("precision", ["16-mixed", "fp16-mixed"])
@pytest.mark.usefixtures("overflow")
def test_a_float16_gradient_that_overflows_is_passed_over_and_the_scale_halved(tiny: Path, precision: str) -> None:
    run = run_of(tiny, precision)
    rows = read_table(run.history_train)
    norms = [float(row["gradient_norm"]) for row in rows]
    passed_over = [step for step, norm in enumerate(norms, 1) if not norm < float("inf")]
    assert OVERFLOWS_AT in passed_over
    assert (
        len(passed_over) <= 2
    )  # float16 may overflow once more by itself: in the stem, whose gradient is a sum over all places
    newest = checkpoints.all_checkpoints(run.checkpoints)[-1]
    assert newest.step == len(rows) == 10
    steps = {float(t) for name, t in load_file(newest.training).items() if name.endswith(".step")}
    assert steps == {float(10 - len(passed_over))}  # updates of the weights
    scaler = newest.state()["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0 ** (16 - len(passed_over)), 10 - passed_over[-1])


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
@pytest.mark.usefixtures("overflow")
def test_without_a_scale_it_stops_the_run(tiny: Path, precision: str) -> None:
    with pytest.raises(ModelError, match=f"step {OVERFLOWS_AT}: .* not finite"):
        run_of(tiny, precision)
