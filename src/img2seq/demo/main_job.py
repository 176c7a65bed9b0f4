"""`img2seq demo`: the main job on generated scenes. Text-only baseline, image and text, comparison, in a few minutes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from img2seq.captioner import Captioner
from img2seq.config.load import ConfigFiles, LoadedConfig, load
from img2seq.demo.dataset import chosen_scenes, write_dataset
from img2seq.demo.wording import is_true
from img2seq.errors import RunError
from img2seq.progress import Announcer
from img2seq.report.compare import compare
from img2seq.runs import RunFolder
from img2seq.training.loop import train

N_TRAIN, N_VALID = 2500, 250
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
    announce.say(f"1/4 drawing {N_TRAIN + N_VALID:,} scenes with five captions each into {made_here}")
    write_dataset(made_here, n_train=N_TRAIN, n_valid=N_VALID, seed=seed)
    announce.say("2/4 training the text-only baseline")
    train(_configured(folder, "text", seed, with_image=False), overwrite=True)
    announce.say("3/4 training image and text")
    run = train(_configured(folder, "image", seed, with_image=True), overwrite=True)
    announce.say("4/4 comparing")
    text = compare([folder / "text", folder / "image"], folder / "compare")
    n_right, n_all = count_right(run, made_here, seed=seed)
    return f"\n{text}\n\n{n_right} of {n_all} captions of unseen scenes are right. Open the report in a browser."


def _configured(folder: Path, name: str, seed: int, *, with_image: bool) -> LoadedConfig:
    """Return the demo's configuration for one of its two runs, which differ in the inputs alone."""
    data = folder / "data"
    paths = {
        "globals.basic_experiment.output_folder": folder / name,
        "globals.basic_experiment.manual_valid_ids_file": data / "valid_ids.txt",
        "inputs.scene.input_info.input_source": data / "images",
        "outputs.captions.output_info.output_source": data / "captions.csv",
        "globals.basic_experiment.cache_folder": data / "cache",
    }
    overrides = [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]
    loaded = load(ConfigFiles(experiment=str(EXPERIMENT)), [*overrides, f"globals.basic_experiment.seed={seed}"])
    if with_image:
        return loaded
    return LoadedConfig(loaded.experiment.model_copy(update={"inputs": []}), loaded.sources)


def count_right(run: RunFolder, data: Path, *, seed: int) -> tuple[int, int]:
    """Return how many validation scenes get a caption that says nothing untrue of them, and how many there are."""
    scenes = list(chosen_scenes(seed, N_TRAIN, N_VALID))
    unseen = [i for i, one in enumerate(scenes) if one.is_validation]
    captions = Captioner.load(run.path).caption([data / "images" / f"scene_{i:05d}.jpg" for i in unseen])
    right = sum(is_true(scenes[i], caption.text) for i, caption in zip(unseen, captions, strict=True))
    return right, len(unseen)
