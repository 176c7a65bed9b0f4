"""Where torch's threads compute: on a core each while training, and on one thread where captions are few."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from img2seq import Captioner
from img2seq.generation.model_step import ModelStep
from img2seq.model.cpu.cores import SETTINGS
from img2seq.model.cpu.few_rows import FEW_ROWS, one_thread_for

BIND = """
import json, os, sys
from img2seq.model.cpu.cores import bind_threads, on_first_core
mine = os.sched_getaffinity(0)
bind_threads()
import torch
torch.randn(1000, 1000).mm(torch.randn(1000, 1000)).exp()
def cores(): return {task: sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
me = str(os.getpid())
with on_first_core():
    inside = cores()
outside = cores()
print(json.dumps({
    "all": sorted(mine), "inside": inside.pop(me), "outside": outside.pop(me), "threads": list(inside.values()),
    "n": torch.get_num_threads(), "environment": [name for name in os.environ if name.startswith("OMP")],
}))
"""
needs_two_cores = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


@functools.cache
def bound(**settings: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)} | settings
    done = subprocess.run([sys.executable, "-c", BIND], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_two_cores
def test_each_thread_has_a_core_of_its_own_and_ours_are_free_between_steps() -> None:
    found = bound()
    assert found["outside"] == found["all"]
    assert found["environment"] == []
    if found["n"] < len(found["all"]):
        pytest.skip("cores of two threads each: their number is the system's to tell")
    used = [found["inside"], *found["threads"]]
    assert sorted(core for cores in used for core in cores) == found["all"]
    assert all(len(cores) == 1 for cores in used)


@needs_two_cores
@pytest.mark.parametrize("setting", ["OMP_NUM_THREADS", "OMP_PROC_BIND", "GOMP_SPINCOUNT"])
def test_a_users_own_setting_of_threads_wins(setting: str) -> None:
    found = bound(**{setting: {"OMP_PROC_BIND": "false"}.get(setting, "2")})
    assert found["inside"] == found["outside"] == found["all"]


def test_few_captions_are_decoded_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    cpu = torch.device("cpu")
    try:
        for n_rows, expected in ((1, 1), (FEW_ROWS, 1), (FEW_ROWS + 1, 2)):
            with one_thread_for(n_rows, cpu):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with one_thread_for(1, cpu):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


TRAIN = """
import json, os, sys
from img2seq.cli import main as cli, train as verb
bind, cores = verb.bind_threads, []

def bind_and_watch():
    bind()
    from img2seq.training.objective import CrossEntropy
    loss_sum = CrossEntropy.loss_sum
    def watched(*arguments):
        cores.append(len(os.sched_getaffinity(0)))
        return loss_sum(*arguments)
    CrossEntropy.loss_sum = watched

verb.bind_threads = bind_and_watch
all_cores = len(os.sched_getaffinity(0))
code = cli.run(["train", sys.argv[1], "--globals.basic_experiment.n_epochs=1"])
print(json.dumps({"code": code, "cores": cores, "freed": len(os.sched_getaffinity(0)) == all_cores}))
"""


@needs_two_cores
def test_training_computes_its_steps_on_the_first_core_and_leaves_it_after_each(tiny: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    command = [sys.executable, "-c", TRAIN, str(tiny / "experiment.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    n_steps = len((tiny / "run/history_train.csv").read_text().splitlines()) - 1
    assert (found["code"], found["freed"]) == (0, True)
    assert len(found["cores"]) == n_steps > 2
    assert set(found["cores"]) == {len(bound()["inside"])}  # one core, where each has one thread


def test_a_picture_is_decoded_on_one_thread_and_many_are_on_all(
    run: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads: list[int] = []
    next_logits = ModelStep.next_logits

    def watched(step: ModelStep, tokens: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return next_logits(step, tokens)

    monkeypatch.setattr(ModelStep, "next_logits", watched)
    captioner, pictures = Captioner.load(run), sorted(images.glob("*.png"))
    torch.set_num_threads(2)
    try:
        captioner.caption(pictures[0], beam_size=5)
        of_one, threads[:] = set(threads), []
        captioner.caption(pictures[:5], beam_size=5)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)
    assert (of_one, set(threads), after) == ({1}, {2}, 2)
