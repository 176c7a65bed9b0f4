"""Try a small member of every family of encoders that timm has, through training and captioning as users do.

    python tests/model/encoder_families.py [FAMILY ...]     # writes docs/encoders.md, some minutes

`test_encoder_families.py` does the same with a few of them.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch

from conftest import ROOT, tiny_config, write_tiny_data, write_yaml
from img2seq.build.features import digest
from img2seq.config.load import ConfigFiles, load
from img2seq.errors import ModelError
from img2seq.inference.captioner import Captioner
from img2seq.model.encoder import ImageEncoder
from img2seq.run.checkpoint import best
from img2seq.training.loop import Trainer, train
from img2seq.training.record import Recorder

SIZES = (32, 64, 128, 224, 240, 256)
SMALL = (
    "test_",
    "nano",
    "tiny",
    "small",
    "atto",
    "pico",
    "femto",
    "xx",
    "_s0",
    "_t0",
    "050",
    "18",
    "26t",
    "_m0",
    "_m1",
    "14t",
)
TIME_LIMIT_S = 400
MOST_CANDIDATES = 4  # of a family, those whose names say that they are small

PAGE = """# Encoders

A small member of each of {n} of the {all} families of timm {timm}, at the smallest size that it takes: it trains a step, is saved, loaded and
captions as it did, on torch and on ONNX Runtime, or it is refused by name before an image is read. Any other name of timm is
tried in the same way when training starts. Made by `python tests/model/encoder_families.py`.

| family | member | million parameters | pixels | what came of it |
|---|---|---|---|---|
{rows}
"""


@dataclass(frozen=True)
class Tried:
    """What came of a member of a family.

    Attributes:
        places: of its feature map.
        onnx: whether ONNX Runtime computes it.
        refused: why it is refused, "" if it works.
    """

    places: int = 0
    onnx: bool = False
    refused: str = ""

    @property
    def in_words(self) -> str:
        """Return what docs/encoders.md says of it."""
        by = "ONNX Runtime" if self.onnx else "torch alone"
        return (
            f"refused: {self.refused.rpartition('pixels: ')[2]}"
            if self.refused
            else f"works, {self.places} places, {by}"
        )


def try_encoder(folder: Path, name: str, size: int) -> Tried:
    """Train one step with an encoder, save, load, and caption with and without ONNX Runtime.

    Raises:
        AssertionError: where what is loaded is not what was trained, or captions otherwise, or an encoder is refused after
            images were read.
    """
    write_tiny_data(folder, n=6)
    config = tiny_config(folder)
    config["globals"]["basic_experiment"] |= {
        "n_epochs": 2,  # what is multiplied by a zero in the first step is trained in the second
        "valid_size": 2,
        "batch_size": 64,
        "cache_folder": str(folder / "cache"),
    }
    config["inputs"][0]["model_config"]["model_type"] = name
    config["inputs"][0]["input_type_info"]["size"] = [size]
    files = ConfigFiles(experiment=str(write_yaml(folder / "experiment.yaml", config)))
    trained: list[str] = []

    def remember(trainer: Trainer, previous: object) -> None:
        before = [p.detach().clone() for p in trainer.model.encoder("photo").parameters()]
        run_to_end(trainer, None)
        after = list(trainer.model.encoder("photo").parameters())
        changed = sum(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
        assert changed > len(after) / 2, f"{changed} of {len(after)} tensors were trained"
        trained.append(digest(trainer.model))

    run_to_end = Trainer.run_to_end
    try:
        with (
            mock.patch.object(Recorder, "_draw_curves", mock.Mock()),
            mock.patch.object(Trainer, "run_to_end", remember),
        ):
            run = train(load(files))
    except ModelError as error:
        assert not (folder / "cache").exists(), "refused after images were read"
        assert name in str(error)
        return Tried(refused=str(error))
    captioner = Captioner.load(run.path)
    model = captioner.trained.model
    assert [digest(model)] == trained
    assert best(run.checkpoints).valid_loss is not None
    pictures = [str(path) for path in sorted((folder / "images").iterdir())]
    captions = captioner.caption(pictures, max_length=8)
    onnx = captioner.prepare_for_many()
    for one, other in zip(captions, captioner.caption(pictures, max_length=8), strict=True):
        assert abs(one.log_probability - other.log_probability) < 0.01
    return Tried(model.encoder("photo").n_places, onnx)


def members() -> list[tuple[int, str, str, int]]:
    """Return (parameters, family, smallest member, smallest size that it takes), small ones first. Nothing is allocated for it."""
    import timm

    found = []
    for family in timm.list_modules():
        names = timm.list_models(module=family)
        small = [name for name in names if any(word in name for word in SMALL)]
        counted = [(_n_parameters(name), name) for name in (small or names)[:MOST_CANDIDATES]]
        n_parameters, name = min(counted)
        found.append((n_parameters, family, name, _smallest_size(name)))
    return sorted(found)


def _n_parameters(name: str) -> int:
    import timm

    try:
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())
    except Exception:  # it has to be told more: the smallest of its family is another one
        return 10**12


def _smallest_size(name: str) -> int:
    """Return a size that it takes, else one at which it is refused."""
    for size in SIZES:
        try:
            with torch.device("meta"):
                ImageEncoder(name, height=size, width=size, mean=[0.5] * 3, std=[0.5] * 3)
        except ModelError:
            continue
        return size
    return SIZES[1]


def _try_in_words(name: str, size: int) -> str:
    """Return what came of an encoder. Runs in a process of its own."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        try:
            return try_encoder(Path(folder) / "x", name, size).in_words
        except Exception as error:
            return f"FAULT: {type(error).__name__}: {error}"


def main(only: list[str]) -> None:
    """Try all families, or those named, and write docs/encoders.md. Each has a process of its own: native code may end it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "timm", "img2seq.training.loop", "img2seq.inference.captioner"])
    rows = []
    every = members()
    for n_parameters, family, name, size in every:
        if only and family not in only:
            continue
        begun = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=context) as process:
            try:
                found = process.submit(_try_in_words, name, size).result(timeout=TIME_LIMIT_S)
            except BrokenProcessPool:
                found = "FAULT: its process died"
            except TimeoutError:
                found = f"FAULT: not done after {TIME_LIMIT_S} s"
                for worker in multiprocessing.active_children():
                    worker.kill()
        rows.append(f"| {family} | {name} | {n_parameters / 1e6:.1f} | {size} | {found} |")
        print(rows[-1], f"{time.perf_counter() - begun:.0f} s", flush=True)
        if not only:
            page = PAGE.format(timm=version("timm"), n=len(rows), all=len(every), rows="\n".join(sorted(rows)))
            (ROOT / "docs/encoders.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
