"""`img2seq demo`: the main job on generated scenes. Text-only baseline, image and text, comparison, in a few minutes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from img2seq.config.load import load_config
from img2seq.config.schema import Experiment
from img2seq.config.show import to_yaml
from img2seq.demo.dataset import chosen_scenes, write_dataset
from img2seq.demo.wording import is_true
from img2seq.errors import RunError
from img2seq.inference.captioner import Captioner
from img2seq.progress import Announcer
from img2seq.report.comparison_page import compare
from img2seq.report.verdict import next_commands
from img2seq.run.folder import RunFolder
from img2seq.run.write import write_text

N_TRAIN, N_VALID = 5000, 250
QUIET = ("no_pbar=true", "log_level=warning")  # of two runs at once one is shown
EXPERIMENT = Path(__file__).with_name("experiment.yaml")


def demo(output: str | Path, *, seed: int = 0, overwrite: bool = False) -> str:
    """Generate the scenes, train without and with the image, compare; return what the terminal shows.

    Args:
        output: folder for data, runs and report.
        seed: of the scenes and of training.
        overwrite: replace what an earlier demo left there.

    Raises:
        RunError: if the folder holds something already and `overwrite` is not given.
    """
    folder = Path(output)
    made_here = folder / "data"
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise RunError(f"{folder}: exists already; choose another with --output, or replace it with --overwrite")
        if not made_here.is_dir():
            raise RunError(f"{folder}: not overwritten, for no demo has written it")
        for name in ("text", "image", "compare"):
            shutil.rmtree(folder / name, ignore_errors=True)
    announce = Announcer()
    announce.say(f"1/3 drawing {N_TRAIN + N_VALID:,} scenes with five captions each into {made_here}")
    write_dataset(made_here, n_train=N_TRAIN, n_valid=N_VALID, seed=seed)
    announce.say("2/3 training without and with the image, side by side")
    _train_side_by_side(folder, seed)
    announce.say("3/3 comparing")
    text = compare([folder / "text", folder / "image"], folder / "compare", overwrite=overwrite)
    n_right, n_all = count_right(RunFolder(folder / "image"), made_here, seed=seed)
    commands = "\n  ".join(["next:", *next_commands(folder / "image")])
    return f"\n{text} (open it in a browser)\n\n{n_right} of {n_all} captions of unseen scenes are right.\n{commands}"


def _train_side_by_side(folder: Path, seed: int) -> None:
    """Train both runs at once, a process and a thread each: models this small gain nothing from more threads.

    Raises:
        RunError: if one of them fails; what went wrong stands above it.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = []
    for name in ("text", "image"):
        path = folder / f"{name}.yaml"
        write_text(path, to_yaml(_configured(folder, name, seed)))
        quiet = [] if name == "image" else [f"--globals.visualization_logging.{key}" for key in QUIET]
        command = [sys.executable, "-m", "img2seq", "train", str(path), "--overwrite", *quiet]
        processes.append(subprocess.Popen(command, env=environment))
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:  # the terminal has interrupted them, too: they save and end
        for process in processes:
            process.wait()
        raise
    if any(codes):
        raise RunError(f"{folder}: training did not finish (exit codes {codes})")


def _configured(folder: Path, name: str, seed: int) -> Experiment:
    """Return the demo's configuration for `text` or `image`, which differ in the inputs alone."""
    data = folder / "data"
    paths = {
        "globals.basic_experiment.output_folder": folder / name,
        "globals.basic_experiment.manual_valid_ids_file": data / "valid_ids.txt",
        "inputs.scene.input_info.input_source": data / "images",
        "outputs.captions.output_info.output_source": data / "captions.csv",
        "globals.basic_experiment.cache_folder": data / "cache",
    }
    overrides = [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]
    config = load_config(EXPERIMENT, *overrides, f"globals.basic_experiment.seed={seed}")
    return config.model_copy(update={"inputs": []}) if name == "text" else config


def count_right(run: RunFolder, data: Path, *, seed: int) -> tuple[int, int]:
    """Return how many validation scenes get a caption that says nothing untrue of them, and how many there are."""
    scenes = list(chosen_scenes(seed, N_TRAIN, N_VALID))
    unseen = [i for i, one in enumerate(scenes) if one.is_validation]
    captions = Captioner.load(run.path).caption([data / "images" / f"scene_{i:05d}.jpg" for i in unseen])
    right = sum(is_true(scenes[i], caption.text) for i, caption in zip(unseen, captions, strict=True))
    return right, len(unseen)
