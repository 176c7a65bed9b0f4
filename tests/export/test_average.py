"""`img2seq runs average`: the mean of the last checkpoints as a run of its own, over nothing of a person's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from conftest import img2seq, tiny_config, write_tiny_data, write_yaml
from img2seq import Captioner
from img2seq.model.weights import read_tensors
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import read_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that kept three checkpoints, with batch norms that train."""
    from img2seq.config.load import ConfigFiles, load
    from img2seq.training.loop import train

    folder = tmp_path_factory.mktemp("average")
    write_tiny_data(folder)
    config = tiny_config(folder)
    config["globals"]["basic_experiment"]["n_epochs"] = 4
    config["globals"]["evaluation_checkpoint"] |= {"checkpoint_interval": 2, "n_saved_models": 4, "sample_interval": 2}
    train(load(ConfigFiles(experiment=str(write_yaml(folder / "experiment.yaml", config)))))
    return folder / "run"


def test_it_is_the_mean_of_the_last_checkpoints(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert img2seq("runs", "average", trained, tmp_path / "mean", "--last", "3") == 0
    checkpoints = all_checkpoints(trained / "checkpoints")[-3:]
    of_each = [read_tensors(checkpoint.weights) for checkpoint in checkpoints]
    assert any("running_var" in name for name in of_each[0])
    (written,) = all_checkpoints(tmp_path / "mean/checkpoints")
    found = read_tensors(written.weights)
    assert set(found) == set(of_each[0])
    assert any(not torch.equal(found[name], of_each[-1][name]) for name in found)
    for name, tensor in found.items():
        newest = of_each[-1][name]
        assert tensor.dtype == newest.dtype
        if newest.is_floating_point():
            torch.testing.assert_close(tensor, sum(one[name] for one in of_each) / 3)
        else:
            assert torch.equal(tensor, newest)
    assert read_json(tmp_path / "mean/export.json")["averaged_steps"] == [checkpoint.step for checkpoint in checkpoints]
    assert written.valid_loss is None
    assert img2seq("runs", "verify", tmp_path / "mean") == 0
    assert img2seq("runs", "show", tmp_path / "mean") == 0
    assert "the mean of steps" in capsys.readouterr().out


def test_it_captions_and_is_scored_as_a_run(trained: Path, tmp_path: Path) -> None:
    assert img2seq("runs", "average", trained, tmp_path / "mean", "--last", "2") == 0
    shutil.move(tmp_path / "mean", tmp_path / "moved")
    assert Captioner.load(tmp_path / "moved").caption(trained.parent / "images/000.png").text
    assert img2seq("evaluate", tmp_path / "moved") == 0
    metrics = read_json(tmp_path / "moved/evaluation/metrics.json")
    assert metrics["images"] == 6
    assert metrics["loss"] > 0


def test_nothing_is_written_over(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in trained.iterdir())
    for target in (trained, trained.parent, trained.parent / "captions.csv"):
        assert img2seq("runs", "average", trained, target, "--last", "2") == 2
    assert sorted(path.name for path in trained.iterdir()) == before
    assert img2seq("runs", "average", trained, tmp_path / "mean", "--last", "2") == 0
    assert img2seq("runs", "average", trained, tmp_path / "mean", "--last", "3") == 2
    assert "is an export already" in capsys.readouterr().err


def test_fewer_checkpoints_and_damaged_ones_are_one_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = len(all_checkpoints(trained / "checkpoints"))
    assert img2seq("runs", "average", trained, tmp_path / "mean", "--last", str(n + 1)) == 2
    assert f"expected {n + 1} checkpoints to average, found {n}" in capsys.readouterr().err
    shutil.copytree(trained, tmp_path / "damaged")
    weights = all_checkpoints(tmp_path / "damaged/checkpoints")[-2].weights
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    assert img2seq("runs", "average", tmp_path / "damaged", tmp_path / "mean", "--last", "2") == 2
    assert str(weights) in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
