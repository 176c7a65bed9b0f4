"""What tests share: a tiny data set of real image files, a tiny configuration, and the way to the shared data."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

needs_flickr8k = pytest.mark.skipif(
    not (SHARED / "data/flickr8k").is_dir(), reason="needs ../shared/data/flickr8k, which is not here"
)
needs_tutorial = pytest.mark.skipif(
    not (SHARED / "tutorial").is_dir(), reason="needs ../shared/tutorial, which is not here"
)

# For scripts that measure themselves: the most memory this process has held, in MB. `ru_maxrss` alone will not do on Linux:
# a child begins with its parent's.
PEAK_MB = """
import resource
from pathlib import Path
def peak_mb():
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
"""

COLOURS = {"red": "#d0342c", "green": "#2f9e44", "blue": "#1c5fd0", "black": "#181818"}
SHAPES = ("ball", "box")


LONGEST = (  # seconds each: begun last, one of them would keep a worker busy while the others have nothing left to do
    *("test_java_metrics.py", "test_process_faults.py", "test_platforms.py", "test_threads.py", "test_fuzz.py"),
    *(
        "::test_evaluating_a_run",
        "::test_importing_changes_nothing",
        "::test_the_tutorials_command",
        "::test_closed_standard",
    ),
    *("::test_a_run_stopped_at_any_step", "::test_killed_", "::test_the_examples_of_help"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest tests begin first, and those last that wait for what another one builds.

    `xdist_group` would keep the latter in one worker, but does nothing with pytest 9 and pytest-xdist 3.8.
    """

    def place(item: pytest.Item) -> int:
        if "test_processes.py" in item.nodeid:
            return 0 if "same_curve_as_one[plain]" in item.nodeid else 3
        if "test_browser_page.py::test_its_captions_are" in item.nodeid:
            return 0  # builds the export that many tests read, for as long as the first of the above takes
        return 1 if any(part in item.nodeid for part in LONGEST) else 2

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests."""
    monkeypatch.setenv("IMG2SEQ_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _no_java(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute METEOR only where a test is marked `java`: each evaluation would start its program, for seconds."""
    from img2seq.metrics import java

    def meteor(*texts: object) -> object:
        raise java.NotComputed("not in this test")

    if request.node.get_closest_marker("java") is None:
        monkeypatch.setattr(java, "meteor", meteor)


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run's figures but draw them only where a test is marked `figures`: that takes as long as training does."""
    from img2seq.training import record

    def save(figure: object, path: Path, **options: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)

    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr(record, "save_figure", save)


@pytest.fixture
def speed_ups_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every speed-up on, whatever the environment says: for tests of the speed-ups themselves."""
    monkeypatch.delenv("IMG2SEQ_PLAIN", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models are faster on one thread, and tests that run side by side do not fight for cores."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def write_tiny_data(folder: Path, *, n: int = 24, captions: int = 2) -> None:
    """Write n small pictures of one coloured shape and their captions: images/NNN.png, captions.csv."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(n):
        colour, shape = list(COLOURS)[i % 4], SHAPES[i // 4 % 2]
        image = Image.new("RGB", (40, 30), "#e8e4da")
        draw = ImageDraw.Draw(image)
        box = (4 + i % 5, 4, 24 + i % 5, 24)
        (draw.ellipse if shape == "ball" else draw.rectangle)(box, fill=COLOURS[colour])
        image.save(folder / "images" / f"{i:03}.png")
        texts = (f"a {colour} {shape} .", f"there is one {shape} and it is {colour} .", f"the {shape} looks {colour} .")
        rows += [(f"{i:03}", text) for text in texts[:captions]]
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("ID", "Sequence"), *rows])


def tiny_config(folder: Path, *, with_image: bool = True) -> dict[str, Any]:
    """Return a configuration over `write_tiny_data` that trains in a second."""
    image_input = {
        "input_info": {"input_source": str(folder / "images"), "input_name": "photo", "input_type": "image"},
        "input_type_info": {"size": [32], "auto_augment": True},
        "model_config": {"model_type": "test_resnet"},
    }
    return {
        "globals": {
            "basic_experiment": {"output_folder": str(folder / "run"), "n_epochs": 2, "batch_size": 8, "valid_size": 6},
            "optimization": {"lr": 0.003},
            "evaluation_checkpoint": {"sample_interval": 5},
            "visualization_logging": {"no_pbar": True},
        },
        "inputs": [image_input] if with_image else [],
        "outputs": [
            {
                "output_info": {
                    "output_source": str(folder / "captions.csv"),
                    "output_name": "captions",
                    "output_type": "sequence",
                },
                "output_type_info": {"max_length": "max", "min_freq": 1},
                "model_config": {"embedding_dim": 16, "model_init_config": {"num_heads": 2, "num_layers": 2}},
                "sampling_config": {"n_eval_inputs": 3, "generated_sequence_length": 12},
            }
        ],
    }


def write_yaml(path: Path, data: Any) -> Path:
    """Write plain data as YAML."""
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a folder with the tiny data set and experiment.yaml."""
    write_tiny_data(tmp_path)
    write_yaml(tmp_path / "experiment.yaml", tiny_config(tmp_path))
    return tmp_path


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Return a folder that `build` has filled, once for all of pytest's workers. Tests must only read it."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, is_built = base / name, base / f"{name}.built"
    with FileLock(base / f"{name}.lock"):
        if not is_built.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("IMG2SEQ_CACHE", str(folder / "cache"))
                build(folder)
            is_built.touch()
    return folder


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two finished tiny runs, (text only, image and text), trained once for all tests that only read them."""
    folder = built_once(tmp_path_factory, "finished", _train_two)
    return folder / "text", folder / "image"


@pytest.fixture(scope="session")
def run(finished_runs: tuple[Path, Path]) -> Path:
    """Return the finished run that sees images."""
    return finished_runs[1]


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, to change."""
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


_shared_files: set[Path] = set()


@pytest.fixture(autouse=True)
def _shared_runs_stay_as_they_are(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves files in runs which other tests read, or takes some away."""
    yield
    if "finished_runs" in request.fixturenames:
        before, now = set(_shared_files), set()
        for finished in request.getfixturevalue("finished_runs"):
            now |= set(finished.rglob("*"))
        _shared_files.clear()
        _shared_files.update(now)  # the next test is not to blame
        assert not before or now == before, "a finished run was changed, by this test or one at its side"


@pytest.fixture(scope="session")
def images(run: Path) -> Path:
    """Return the images of the finished run."""
    return run.parent / "images"


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export of the finished run for ONNX Runtime, in all precisions. Tests must only read it."""
    from img2seq.export.export_run import export_run
    from img2seq.progress import Announcer

    def build(folder: Path) -> None:
        quiet = Announcer(level="critical", bars=False)
        export_run(run, folder / "export", onnx=("fp32", "fp16", "int8"), announce=quiet)

    return built_once(tmp_path_factory, "exported", build) / "export"


def img2seq(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    from img2seq.cli import main as cli

    return cli.run([str(argument) for argument in arguments])


def _train_two(folder: Path) -> None:
    from img2seq.config.load import ConfigFiles, load
    from img2seq.training.loop import train

    write_tiny_data(folder, n=32)
    for name, with_image in (("text", False), ("image", True)):
        config = tiny_config(folder, with_image=with_image)
        config["globals"]["basic_experiment"] |= {"output_folder": str(folder / name), "n_epochs": 20}
        config["globals"]["optimization"]["lr"] = 0.006
        config["globals"]["evaluation_checkpoint"]["sample_interval"] = 45  # among them its best step, 135
        for image_input in config["inputs"]:  # augmentation repaints the colours these captions speak of
            image_input["input_type_info"]["auto_augment"] = False
        train(load(ConfigFiles(experiment=str(write_yaml(folder / f"{name}.yaml", config)))))


def minimal_config() -> dict[str, Any]:
    """Return the shortest configuration that can be read."""
    return {
        "globals": {"basic_experiment": {"output_folder": "runs/x"}},
        "inputs": [
            {
                "input_info": {"input_source": "images", "input_name": "photo", "input_type": "image"},
                "model_config": {"model_type": "resnet18"},
            }
        ],
        "outputs": [{"output_info": {"output_source": "c.csv", "output_name": "captions", "output_type": "sequence"}}],
    }
