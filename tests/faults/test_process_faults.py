"""Several processes of one run: a signal to one stops all, a death ends all, an error is told once. Real processes, ended by id."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist

from children import child, exit_code, free_port, img2seq, join, wait_until
from children import run as run_child
from img2seq.config.load import ConfigFiles, load
from img2seq.run import checkpoint as checkpoints
from img2seq.run import save_checkpoint
from img2seq.run.folder import RunFolder, read_json
from img2seq.training.distributed import joined
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import train

LONG = ["--globals.basic_experiment.n_epochs=100000", "--globals.training_control.early_stopping_patience=0"]
LONG += ["--inputs.photo.input_type_info.size=[64]"]  # more than one place, for batch statistics of one image
LONG += ["--globals.evaluation_checkpoint.checkpoint_interval=2", "--globals.evaluation_checkpoint.sample_interval=4"]


def torchrun(*arguments: object) -> None:
    """Be torchrun, which starts two interpreters that train."""
    from torch.distributed import run

    run.main(["--standalone", "--nproc-per-node", "2", "-m", "img2seq", "train", *map(str, arguments)])


def is_trained(run: RunFolder) -> bool:
    """Return whether a step has been saved and the loop is at work."""
    return bool(checkpoints.all_checkpoints(run.checkpoints)) and run.history_valid.exists()


def children_of(pid: int) -> dict[int, int]:
    """Return the process ids of torchrun's workers by rank."""
    found = {}
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        ranks = [entry.removeprefix(b"RANK=") for entry in environment if entry.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0])] = int(worker)
    return found


def steps_after_resuming(tiny: Path) -> int:
    """Return the step that one process alone gets to, from the newest checkpoint."""
    overrides = [*(text.removeprefix("--") for text in LONG), "globals.basic_experiment.max_time_s=1e-9"]
    with pytest.raises(Interrupted):
        train(load(ConfigFiles(experiment=str(tiny / "experiment.yaml")), overrides), resume=True)
    return checkpoints.all_checkpoints(RunFolder(tiny / "run").checkpoints)[-1].step


@pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's processes through /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_killed_ends_all_with_one_error_and_a_checkpoint_to_go_on_from(tiny: Path, rank: int) -> None:
    run = RunFolder(tiny / "run")
    with child(torchrun, tiny / "experiment.yaml", *LONG, log=tiny / "err") as agent:
        wait_until(lambda: is_trained(run), agent)
        workers = children_of(agent.pid or 0)
        assert sorted(workers) == [0, 1]
        os.kill(workers[rank], signal.SIGKILL)
        assert exit_code(agent) != 0
    text = (tiny / "err").read_text()
    assert text.count("error: another process of this run has died") == 1
    assert f"[rank{1 - rank}]: Traceback" not in text
    assert not [pid for pid in workers.values() if Path(f"/proc/{pid}").exists()]
    found = save_checkpoint.newest_valid(run.checkpoints, pytest.fail)
    assert found is not None
    assert steps_after_resuming(tiny) > found.step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_any_process_stops_all_after_the_same_step(tiny: Path, number: signal.Signals) -> None:
    run, port = RunFolder(tiny / "run"), free_port()
    arguments = ["train", tiny / "experiment.yaml", *LONG]
    logs = [tiny / f"{rank}.txt" for rank in range(2)]
    plants = [partial(join, rank, port) for rank in range(2)]
    with (
        child(img2seq, arguments, plants[0], log=logs[0]) as first,
        child(img2seq, arguments, plants[1], log=logs[1]) as second,
    ):
        wait_until(lambda: is_trained(run), second)
        os.kill(second.pid or 0, number)
        assert [exit_code(first), exit_code(second)] == [128 + number] * 2
    text = "".join(log.read_text() for log in logs)
    assert "Traceback" not in text
    saved = save_checkpoint.newest_valid(run.checkpoints, pytest.fail)
    assert saved is not None
    assert f"stopped by {number.name}, after step {saved.step} of" in text
    assert len(run.history_train.read_text().splitlines()) == 1 + saved.step
    assert steps_after_resuming(tiny) > saved.step


@pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's processes through /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_leaves_a_checkpoint_to_go_on_from(tiny: Path, number: signal.Signals) -> None:
    run = RunFolder(tiny / "run")
    with child(torchrun, tiny / "experiment.yaml", *LONG, log=tiny / "err") as agent:
        wait_until(lambda: is_trained(run), agent)
        workers = children_of(agent.pid or 0)
        assert sorted(workers) == [0, 1]
        os.kill(agent.pid or 0, number)
        assert exit_code(agent) == 1  # torchrun's own, with a traceback of its own: not 143 or 130
    text = (tiny / "err").read_text()
    assert "SignalException" in text
    assert not [pid for pid in workers.values() if Path(f"/proc/{pid}").exists()]
    saved = save_checkpoint.newest_valid(run.checkpoints, pytest.fail)
    assert saved is not None
    assert f"stopped by {number.name}, after step {saved.step} of" in text
    assert len(run.history_train.read_text().splitlines()) == 1 + saved.step
    assert not run.lock.exists()
    assert steps_after_resuming(tiny) > saved.step


def test_an_error_of_the_first_process_ends_the_others_without_a_word(tiny: Path) -> None:
    (tiny / "images/003.png").write_bytes(b"not an image")
    assert run_child(torchrun, tiny / "experiment.yaml", log=tiny / "err") != 0
    text = (tiny / "err").read_text()
    assert text.count("error: ") == 1
    assert "003.png" in text
    assert "[rank" not in text
    assert not (tiny / "run").exists()


def sum_without_a_group_for_the_cpu(rank: int, folder: Path) -> None:
    """Be one of two processes of a program that has made a group for GPUs alone, as NCCL is."""
    dist.init_process_group("cuda:gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with joined("cuda") as world:
        found = [world.sum(rank + 0.5), world.largest(rank), world.from_first(lambda: 7)]
        world.check_same("numbers", 1)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_numbers_are_exchanged_where_a_program_has_a_group_for_gpus_alone(tmp_path: Path) -> None:
    with (
        child(sum_without_a_group_for_the_cpu, 0, tmp_path) as one,
        child(sum_without_a_group_for_the_cpu, 1, tmp_path) as other,
    ):
        assert (exit_code(one), exit_code(other)) == (0, 0)
    assert [read_json(tmp_path / f"{rank}.json") for rank in (0, 1)] == [[2.0, 1, 7]] * 2
