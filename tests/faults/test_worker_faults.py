"""Workers (rows 14 and 15 of docs/faults.md): they are threads of one process, and share no memory but its own."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from children import Surroundings, child, exit_code
from conftest import write_tiny_data
from img2seq.cli import main as cli
from img2seq.data import caption_set as caption_set_module
from img2seq.data.augment import trivial_augment
from img2seq.data.caption_set import CaptionSet, ImageRows
from img2seq.data.image import ImageSpec, Pixels
from img2seq.data.order import training_plan
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import find_images
from img2seq.data.vocabulary import learn_words


def train_with_a_worker_that_fails(experiment: Path, workers: str) -> None:
    """Be the command line, with a worker that fails at the thirtieth image of its life."""
    calls = []

    def failing(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        calls.append(threading.current_thread() is threading.main_thread())
        if len(calls) >= 30:
            raise MemoryError
        return trivial_augment(pixels, rng)

    vars(caption_set_module)["trivial_augment"] = failing
    code = cli.run(["train", str(experiment), f"--globals.basic_experiment.dataloader_workers={workers}"])
    assert any(calls) == (workers == "0"), "the failure was to be in a worker"
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
    for thread in threads:
        thread.join(timeout=10)
    print([thread.name for thread in threads if thread.is_alive()])
    sys.exit(code)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_worker_that_fails_ends_the_run_with_one_error_and_leaves_nothing_behind(tiny: Path, workers: str) -> None:
    around = Surroundings(stdout=tiny / "out.txt", stderr=tiny / "err.txt")
    started: set[str] = set()
    with child(train_with_a_worker_that_fails, tiny / "experiment.yaml", workers, around=around) as process:
        listing = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.is_alive() and listing.exists():
            with suppress(OSError):  # it has just ended
                started |= set(listing.read_text().split())
            time.sleep(0.05)
        assert exit_code(process) == 2
    out, err = ((tiny / f"{name}.txt").read_text() for name in ("out", "err"))
    assert out.splitlines()[-1] == "[]"  # threads that are left
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert "cannot be prepared: MemoryError" in err
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def caption_set(folder: Path) -> CaptionSet:
    write_tiny_data(folder, n=24)
    files = find_images(folder / "images").pictures
    spec = ImageSpec(32, 32)
    table = cache_pixels(files, spec, folder / "cache", workers=2)
    rows = ImageRows(table.store.map(), np.array(list(table.row_of.values())), spec, True, True)
    captions = {i: ["a red ball", "a box"] for i in files}
    return CaptionSet(captions, learn_words(["a red ball"], split_on=" ", min_freq=1), max_length=8, images={"photo": rows})  # fmt: skip


def test_batches_that_nobody_takes_leave_no_thread(tmp_path: Path) -> None:
    data = caption_set(tmp_path)
    plan = training_plan(data.captions_of, batch_size=4, captions_per_image=2, seed=0, epoch=0)
    before = set(threading.enumerate())
    batches = data.batches(plan, epoch=0, workers=3)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()  # type: ignore[attr-defined]
    for thread in started:
        thread.join(timeout=30)
    assert not [thread for thread in started if thread.is_alive()]


def shared_mappings() -> set[str]:
    """Return the shared memory this process has mapped: files in /dev/shm, removed ones too, and anonymous ones."""
    names = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return {name for name in names if name.startswith(("/dev/shm", "/memfd:", "/torch_", "/dev/zero"))}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps, which this system has not")
def test_no_shared_memory_is_taken(tmp_path: Path) -> None:
    data = caption_set(tmp_path)
    plan = training_plan(data.captions_of, batch_size=4, captions_per_image=2, seed=0, epoch=0)
    before, n_batches = shared_mappings(), 0
    for _batch in data.batches(plan, epoch=0, workers=2):
        n_batches += 1
        assert shared_mappings() == before
    assert n_batches == len(plan)
