"""One process and two train the same model: their curves in one figure, and captions a second.

    python -m benchmarks processes

Two settings of the demo's scenes. In the first nothing depends on who computes what (no dropout, no batch normalisation):
one process, two with DistributedDataParallel and two with FSDP2 must draw one curve, but for rounding. The second is the
everyday one, with dropout and batch normalisation. Every process has one thread. One process with two threads, which adds in
another order too, shows how far rounding alone goes: Adam and a high learning rate make much of it.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.figures import save
from img2seq.demo.dataset import write_dataset
from img2seq.report.curves import save_figure
from img2seq.run.folder import RunFolder
from img2seq.run.tables import read_table

N_TRAIN, N_VALID = 800, 100
FIGURE = Path(__file__).parents[1] / "docs" / "images" / "processes"
FIRST_STEPS = 20  # left out of speeds; before rounding has grown
# name: processes, threads of each, strategy
RUNS = {
    "1 process": (1, 1, "auto"),
    "2 processes, ddp": (2, 1, "ddp"),
    "2 processes, fsdp": (2, 1, "fsdp"),
    "1 process, 2 threads": (1, 2, "auto"),
}


def settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the experiment of each setting."""
    everyday: dict[str, Any] = yaml.safe_load(files("img2seq.demo").joinpath("experiment.yaml").read_text())
    general, (scene,), (captions,) = everyday["globals"], everyday["inputs"], everyday["outputs"]
    general["basic_experiment"] |= {
        "n_epochs": 1, "manual_valid_ids_file": str(folder / "data/valid_ids.txt"),
        "cache_folder": str(folder / "cache"),
    }  # fmt: skip
    general["evaluation_checkpoint"] = {"sample_interval": 50, "checkpoint_interval": 1000}
    general["visualization_logging"] = {"no_pbar": True}
    scene["input_info"]["input_source"] = str(folder / "data/images")
    captions["output_info"]["output_source"] = str(folder / "data/captions.csv")
    captions["sampling_config"]["n_eval_inputs"] = 1
    captions["model_config"]["model_init_config"]["dropout"] = 0.1
    fixed = copy.deepcopy(everyday)
    fixed["inputs"][0]["model_config"] = {"model_type": "test_vit"}
    fixed["outputs"][0]["model_config"]["model_init_config"]["dropout"] = 0.0
    return {"no dropout, no batch normalisation": fixed, "dropout 0.1, batch normalisation": everyday}


def trained(experiment: dict[str, Any], folder: Path, n_processes: int, n_threads: int, strategy: str) -> RunFolder:
    """Train in processes of its own and return the run."""
    experiment["globals"]["basic_experiment"]["output_folder"] = str(folder)
    experiment["globals"]["accelerator"] = {"strategy": strategy}
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(experiment))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes), "-m"]
    command = [sys.executable, "-m", *(launcher if n_processes > 1 else []), "img2seq", "train", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    return RunFolder(folder)


def column(run: RunFolder, name: str, *, valid: bool = False) -> NDArray[np.float64]:
    """Return a column of a run's history."""
    return np.array([float(row[name]) for row in read_table(run.history_valid if valid else run.history_train)])


def draw(curves: dict[str, dict[str, list[float]]]) -> None:
    """Draw the losses of each setting, and how far two processes are from one, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(3, 2), squeeze=False)
    styles = {"1 process": ("#1c5fd0", "-", 2.6), "2 processes, ddp": ("#d0342c", "--", 1.2), "2 processes, fsdp": ("#181818", ":", 1.2), "1 process, 2 threads": ("#999999", "-", 1.0)}  # fmt: skip
    for i, (setting, of_runs) in enumerate(curves.items()):
        one = np.array(of_runs["1 process"])
        steps = np.arange(1, len(one) + 1)
        for name, losses in of_runs.items():
            colour, line, width = styles[name]
            if "threads" not in name:
                axes[0, i].plot(steps, losses, color=colour, linestyle=line, linewidth=width, label=name)
            if name != "1 process":
                apart = np.maximum(np.abs(np.array(losses) - one), 1e-7)
                axes[1, i].plot(steps, apart, color=colour, linestyle=line, linewidth=1.2, label=name)
        axes[0, i].legend(frameon=False)
        axes[1, i].legend(axes[1, i].lines[-1:], ["1 process, 2 threads"], frameon=False, loc="upper right")
        axes[0, i].set_title(setting, fontsize=10)
        axes[1, i].set_yscale("log")
        axes[1, i].set_ylim(5e-8, 20)
        axes[1, i].set_xlabel("step")
        for axis in axes[:, i]:
            axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("training loss, nats per token")
    axes[1, 0].set_ylabel("distance from one process")
    save_figure(figure, FIGURE, formats=["png"])


def main(line: Sequence[str] = ()) -> None:
    """Train all runs, print and save what came out, and draw the figure."""
    results: dict[str, Any] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_dataset(folder / "data", n_train=N_TRAIN, n_valid=N_VALID, seed=0, size=64)
        for number, (setting, experiment) in enumerate(settings(folder).items()):
            runs = {
                name: trained(experiment, folder / f"run-{number}-{i}", *how)
                for i, (name, how) in enumerate(RUNS.items())
            }
            losses = {name: column(run, "loss") for name, run in runs.items()}
            curves[setting] = {name: loss.tolist() for name, loss in losses.items()}
            results[setting] = {}
            print(f"\n{setting}: {len(losses['1 process'])} steps")
            for name, run in runs.items():
                apart = np.abs(losses[name] - losses["1 process"])
                results[setting][name] = found = {
                    "captions_per_s": round(float(np.median(column(run, "captions_per_s")[FIRST_STEPS:]))),
                    "last_valid_loss": float(column(run, "valid_loss", valid=True)[-1]),
                    "largest_distance_first_steps": float(apart[:FIRST_STEPS].max()),
                    "largest_distance": float(apart.max()),
                    "mean_distance": float(apart.mean()),
                }
                print(
                    f"  {name:20} {found['captions_per_s']:4} captions/s, last validation loss {found['last_valid_loss']:.4f}; "
                    f"training loss from one process's: at most {found['largest_distance_first_steps']:.0e} in the first "
                    f"{FIRST_STEPS} steps, {found['largest_distance']:.0e} in all, mean {found['mean_distance']:.0e}"
                )
    save("processes", {"n_train": N_TRAIN, "runs": results, "training_losses": curves})
    draw(curves)


if __name__ == "__main__":
    main()
