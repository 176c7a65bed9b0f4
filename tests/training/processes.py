"""What each of two processes does in test_processes.py: train one run after another.

A job is {"name", "experiment", "overrides", "sittings"}: with `sittings`, training is stopped after every step and resumed,
that many times at most. What a process has learnt goes to NAME.RANK in the folder of JOBS.json: its weights' digest.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from children import join
from img2seq.build.features import digest
from img2seq.config.load import ConfigFiles, load
from img2seq.run.checkpoint import Checkpoint
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train
from img2seq.training.parallel import is_sharded
from img2seq.training.record import Recorder

STOP_AT_ONCE = "globals.basic_experiment.max_time_s=1e-9"


@mock.patch.object(Recorder, "_draw_curves", mock.Mock())
def run_job(job: dict[str, Any]) -> None:
    """Train as a job says, in one sitting or in several. Curves are not drawn: that takes longer than training."""
    files = ConfigFiles(experiment=job["experiment"])
    if not job.get("sittings"):
        train(load(files, job["overrides"]))
        return
    for _ in range(job["sittings"]):
        run = Path(load(files, job["overrides"]).experiment.globals.basic_experiment.output_folder)
        try:
            train(load(files, [*job["overrides"], STOP_AT_ONCE]), resume=run.exists())
            return
        except Interrupted:
            pass


def main(jobs: Path, rank: int, port: int) -> None:
    """Do all jobs, as one of two processes."""
    join(rank, port)
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    # graphs are captured as they are in earnest, but not compiled: that would take a minute
    torch.compile = functools.partial(torch.compile, backend="eager")
    run_to_end = Trainer.run_to_end
    for job in json.loads(jobs.read_text()):

        def remember(trainer: Trainer, previous: Checkpoint | None, name: str = job["name"]) -> None:
            run_to_end(trainer, previous)
            if not is_sharded(trainer.model):
                jobs.with_name(f"{name}.{dist.get_rank()}").write_text(digest(trainer.model))

        Trainer.run_to_end = remember  # type: ignore[method-assign, assignment]
        run_job(job)
    dist.destroy_process_group()
