"""A training process killed at random moments and resumed each time, against the same training left alone.

    python -m benchmarks.torture --kills 100 --seed 0

Training is shuffled and augmented, with dropout, accumulation, averaging, two workers, evaluations with samples, and a
checkpoint every second step. Each attempt is a process of its own, forked from a server that has imported the package so
that it begins at once. It is killed by SIGKILL after a time drawn from 0 to `--longest` seconds, so kills fall into the
reading of data, steps, evaluations, the writing and pruning of checkpoints, and the last files. A run that ends before the
kills are spent is compared and a new one begun; after the last kill the run is left to end. Compared are weights,
optimiser state and averages byte by byte, the position, histories but for times, and every sampled text and picture.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import save
from img2seq.demo.dataset import write_dataset
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.save_checkpoint import newest_valid
from img2seq.run.tables import read_table
from img2seq.run.write import write_text

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["img2seq.cli.main", "img2seq.training.loop", "timm", "tensorboardX", "matplotlib.pyplot"]
)

EXPERIMENT = """
globals:
  basic_experiment: {output_folder: run, n_epochs: 4, batch_size: 16, dataloader_workers: 2, manual_valid_ids_file: data/valid_ids.txt}
  optimization: {lr: 0.003, gradient_accumulation_steps: 2, gradient_noise: 0.0001}
  lr_schedule: {lr_schedule: cosine}
  model: {ema_decay: 0.95}
  evaluation_checkpoint: {sample_interval: 9, checkpoint_interval: 2, n_saved_models: 2}
  visualization_logging: {no_pbar: true, log_level: error}
inputs:
  - input_info: {input_source: data/images, input_name: photo, input_type: image}
    input_type_info: {size: [32], auto_augment: true}
    model_config: {model_type: test_resnet}
outputs:
  - output_info: {output_source: data/captions.csv, output_name: captions, output_type: sequence}
    output_type_info: {max_length: max, min_freq: 1}
    model_config: {embedding_dim: 32, model_init_config: {num_heads: 4, num_layers: 2, dropout: 0.1}}
    sampling_config: {n_eval_inputs: 2, generated_sequence_length: 16}
"""


def attempt(folder: Path, name: str, resume: bool) -> None:
    """Train in this process, from the beginning or on."""
    os.chdir(folder)
    os.environ["IMG2SEQ_CACHE"] = str(folder / "cache")
    sys.stderr = Path("messages.txt").open("a")  # noqa: SIM115
    import torch

    from img2seq.cli import main as cli

    torch.set_num_threads(1)
    flags = ["--resume"] if resume else []
    sys.exit(cli.run(["train", "experiment.yaml", f"--globals.basic_experiment.output_folder={name}", *flags]))


def run_attempt(folder: Path, name: str, *, resume: bool, kill_after_s: float | None) -> int:
    """Return the exit code of an attempt; -9 where it was killed."""
    process = CONTEXT.Process(target=attempt, args=(folder, name, resume))
    process.start()
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(
            f"an attempt failed with exit code {process.exitcode}:\n{(folder / 'messages.txt').read_text()}"
        )
    return process.exitcode


def what_is_left(run: RunFolder) -> str:
    """Return where a killed attempt had come to, as far as the disk tells."""
    if any(run.checkpoints.glob(".tmp-step-*")):
        return "a checkpoint half written"
    if not all_checkpoints(run.checkpoints):
        return "no checkpoint yet"
    return "a whole newest checkpoint"


def outcome(run: RunFolder) -> dict[str, Any]:
    """Return all that must be alike in two runs."""
    times = {"captions_per_s", "elapsed_s", "train_time_s"}
    newest = newest_valid(run.checkpoints, print)
    assert newest is not None
    samples = run.path / "samples"
    tables = {path.name: read_table(path) for path in (run.history_train, run.history_valid)}
    return {
        "weights": newest.weights.read_bytes(),
        "optimizer and averages": newest.training.read_bytes(),
        "position": {key: value for key, value in newest.state()["position"].items() if key not in times},
        "histories": {
            name: [{key: row[key] for key in row.keys() - times} for row in rows] for name, rows in tables.items()
        },
        "samples": {
            str(path.relative_to(samples)): path.read_bytes()
            for path in samples.rglob("*")
            if path.is_file() and path.name != "grid.jpg"  # it has the run's name in its title
        },
        "last evaluation": (run.validation / "images.csv").read_bytes(),
        "captions": read_json(run.validation / "captions.json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=1.6, help="the longest that an attempt may live, seconds")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        begun = time.monotonic()
        write_dataset(folder / "data", n_train=48, n_valid=8, seed=arguments.seed, size=48)
        write_text(folder / "experiment.yaml", EXPERIMENT)
        run_attempt(folder, "whole", resume=False, kill_after_s=None)
        whole = outcome(RunFolder(folder / "whole"))
        n_kills, n_steps_begun, left, differing = 0, 0, dict[str, int](), list[str]()
        n_runs, mismatches, is_new = 0, 0, True
        run = RunFolder(folder / "run-0")
        while n_kills < arguments.kills or not is_new:
            wait_s = draw.uniform(0, arguments.longest) if n_kills < arguments.kills else None
            resume = (run.path / "run.lock").exists() or run.config.exists()
            before = max((c.step for c in all_checkpoints(run.checkpoints)), default=0)
            if run_attempt(folder, run.path.name, resume=resume, kill_after_s=wait_s):
                n_kills, is_new = n_kills + 1, False
                left[what_is_left(run)] = left.get(what_is_left(run), 0) + 1
                n_steps_begun += max((c.step for c in all_checkpoints(run.checkpoints)), default=0) > before
                continue
            found = outcome(run)
            differing += [f"{run.path.name}: {name}" for name in whole if found[name] != whole[name]]
            mismatches += any(found[name] != whole[name] for name in whole)
            shutil.rmtree(run.path)
            n_runs, is_new = n_runs + 1, True
            run = RunFolder(folder / f"run-{n_runs}")
        figures = {
            "kills": n_kills,
            "seed": arguments.seed,
            "steps_of_a_run": whole["position"]["step"],
            "runs_ended": n_runs,
            "runs_that_differ": mismatches,
            "differing": differing,
            "compared": list(whole),
            "kills_that_left": left,
            "killed_attempts_that_had_saved": n_steps_begun,
            "elapsed_s": round(time.monotonic() - begun),
        }
    finally:
        shutil.rmtree(folder)
    save("torture", figures)
    print("\n".join(f"{name:<32}{value}" for name, value in figures.items()))
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
