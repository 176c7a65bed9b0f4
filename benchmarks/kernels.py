"""What each hand-written speed-up brings to a whole step, a start and captions: with and without it, on five models.

    python -m benchmarks kernels [--models text ...] [--speed-ups taps ...] [--seconds 80] [--starts 3]    about fifteen minutes

Every model is trained by the tutorial's four files, with overrides. Steps alternate within one process, one with the speed-up and
one without, on the same batches (IMG2SEQ_PLAIN is read at use); `memory` and `threads` (two `dataloader_workers` against none),
which hold for a process, have a second one each. `threads` is measured with the wait for each batch. A start is a process of its own from its beginning to its first step: for
`threads` with an empty pixel cache. Captions are those of an interrupted run through the Python API.

The gain is how much longer it takes without, by medians and by the fastest tenth. On a busy machine threads that wait for each
other take several times as long: there `--threads 1` compares the time of the processor that the process took, which other work
hardly touches (of `threads` it is always the time that passed). A speed-up pays on a model where both gains reach PAYS, and
stays where it pays on ON_MODELS. `nothing` compares a step with itself: what it shows is noise.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import result, save
from benchmarks.peers import Session
from benchmarks.photographs import photographs
from benchmarks.training import arguments, run

OF_224 = (
    "globals.basic_experiment.batch_size=30",
    "globals.basic_experiment.captions_per_image=5",
    "inputs_resnet18.input_type_info.size=[224]",
)
MODELS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # title, kind of the tutorial's, further overrides
    "image": ("tutorial, 1 caption an image", "image", ()),
    "five": ("tutorial, 5 captions an image", "five", ()),
    "text": ("text only", "text", ()),
    "resnet18_224": ("ResNet-18 at 224", "five", OF_224),
    "vit_small_224": ("ViT-small at 224", "five", (*OF_224, "inputs_resnet18.model_config.model_type=vit_small_patch16_224")),
}  # fmt: skip
WITH_IMAGES = ("image", "five", "resnet18_224", "vit_small_224")
ROWS: list[tuple[str, str, Sequence[str]]] = [  # speed-up, work, and the models it can act on there
    ("nothing", "step", tuple(MODELS)),
    ("winograd", "step", ("image", "five", "resnet18_224")),
    ("taps", "step", ("image", "five")),
    ("attention_products", "step", tuple(MODELS)),
    ("dropout", "step", tuple(MODELS)),
    ("memory", "step", tuple(MODELS)),
    ("threads", "step", tuple(MODELS)),
    ("threads", "start", WITH_IMAGES),
    ("collector", "start", tuple(MODELS)),
    ("decoding_layout", "1 caption", WITH_IMAGES),
    ("decoding_layout", "32 captions", WITH_IMAGES),
    ("onnx_encoder", "32 captions", WITH_IMAGES),
    ("onnx_decoder", "1 caption", WITH_IMAGES),
    ("onnx_decoder", "32 captions", WITH_IMAGES),
]
CAPTIONS = ("1 caption", "32 captions")
PAYS, ON_MODELS = 0.03, 2
N_IMAGES = 1100  # 500 of them for validation
SPEED_UPS = tuple(dict.fromkeys(name for name, _, _ in ROWS))
LOADED_STEPS = 4  # in turn, for `threads`
FEWEST_ROUNDS = 4
CAPTION_ROUNDS = 16
SINGLE_CAPTIONS = 8  # in turn: they take little time

Times = tuple[float, float]  # seconds that passed, seconds of the processor
Measured = dict[tuple[str, str], tuple[list[Times], list[Times]]]  # by speed-up and work: with it, without


def rows_to_measure(model: str, works: Sequence[str], speed_ups: Sequence[str]) -> Measured:
    """Return the speed-ups that can act on a model in these works, nothing measured yet."""
    return {
        (name, work): ([], [])
        for name, work, models in ROWS
        if work in works and model in models and name in (*speed_ups, "nothing")
    }


def summarise(times: Sequence[Times]) -> dict[str, float]:
    """Return the median and the mean of the fastest tenth, of the time that passed and of the processor's."""
    found: dict[str, float] = {"runs": len(times)}
    for name, column in zip(("passed", "cpu"), zip(*times, strict=True), strict=True):
        fastest = sorted(column)[: math.ceil(len(column) / 10)]
        found |= {f"{name}_median_s": statistics.median(column), f"{name}_fastest_s": statistics.mean(fastest)}
    return found


def row_of(name: str, work: str, model: str, sides: tuple[list[Times], list[Times]]) -> dict[str, Any]:
    """Return what was measured of a speed-up, and how much longer it takes without, as a share."""
    with_it, without = (summarise(side) for side in sides)
    clock = "cpu" if torch.get_num_threads() == 1 and name != "threads" else "passed"
    gain = {how: without[f"{clock}_{how}_s"] / with_it[f"{clock}_{how}_s"] - 1 for how in ("median", "fastest")}
    gain["cpu"] = without["cpu_median_s"] / with_it["cpu_median_s"] - 1
    about = {"speed_up": name, "work": work, "model": model, "clock": clock, "torch_threads": torch.get_num_threads()}
    return about | {"with": with_it, "without": without, "gain": gain}


def pays(row: dict[str, Any]) -> bool:
    """Return whether a speed-up brings enough to a model by both measures."""
    return bool(min(row["gain"]["median"], row["gain"]["fastest"]) >= PAYS)


@contextmanager
def plain(names: str) -> Iterator[None]:
    """Have these speed-ups off in every process that is started meanwhile."""
    before = os.environ.get("IMG2SEQ_PLAIN", "")
    os.environ["IMG2SEQ_PLAIN"] = names
    try:
        yield
    finally:
        os.environ["IMG2SEQ_PLAIN"] = before


def measure_steps(
    model: str, data: dict[str, Path], folder: Path, limit_s: float, speed_ups: Sequence[str]
) -> Measured:
    """Alternate single steps until the time is over, and steps with their loading."""
    _, kind, overrides = MODELS[model]
    given: dict[str, Any] = {"kind": kind, "data": {name: str(path) for name, path in data.items()}}
    given["folder"] = str(folder)
    found = rows_to_measure(model, ["step"], speed_ups)
    usual, alone = (Session("kernel_steps", sys.executable) for _ in range(2))
    with plain("memory"):
        giving_back = Session("kernel_steps", sys.executable)
    with closing(usual), closing(giving_back), closing(alone):
        for session in (usual, giving_back, alone):
            workers = f"globals.basic_experiment.dataloader_workers={0 if session is alone else 2}"
            session.ask(**given, overrides=[*overrides, workers])
        of_process = {"nothing": usual, "memory": giving_back, "threads": alone}
        begun, n_rounds = time.monotonic(), 0
        while n_rounds < FEWEST_ROUNDS or time.monotonic() - begun < limit_s:
            for name, work in found:
                if name == "threads" and n_rounds % 3:
                    continue  # it takes several steps each time
                asked = {"loaded": LOADED_STEPS} if name == "threads" else {"steps": 1}
                sides = {True: (usual, ""), False: (of_process.get(name, usual), "" if name in of_process else name)}
                for is_on in (True, False) if n_rounds % 2 else (False, True):
                    session, names = sides[is_on]
                    found[name, work][not is_on].extend(session.ask(plain=names, **asked)["times"])
            n_rounds += 1
    return found


def measure_starts(model: str, data: dict[str, Path], folder: Path, rounds: int, speed_ups: Sequence[str]) -> Measured:
    """Alternate whole processes, from their beginning to their first step."""
    _, kind, overrides = MODELS[model]
    found = rows_to_measure(model, ["start"], speed_ups)

    def start(off: str, cache: Path) -> Times:
        output = folder / "run"
        line = arguments(kind, data, output, epochs=1, interval=1000, workers=0 if off == "threads" else 2)
        line += [f"--{one}" for one in (*overrides, f"globals.basic_experiment.cache_folder={cache}")]
        with plain("" if off == "threads" else off):
            events = run("ours", [*line, "--max_time", "0.001"], output)
        return events["steps"][0][0] - events["start"], events["cpu_before_s"]

    if found or rows_to_measure(model, CAPTIONS, speed_ups):
        start("", folder / "cache")  # fills caches, and leaves a run to caption with
    for repeat in range(rounds):
        for name, work in found:
            for is_on in (True, False) if repeat % 2 else (False, True):
                cache = folder / "cache"
                if name == "threads":
                    cache = folder / "empty"
                    shutil.rmtree(cache, ignore_errors=True)
                found[name, work][not is_on].append(start("" if is_on else name, cache))
    return found


def measure_captions(model: str, folder: Path, speed_ups: Sequence[str]) -> Measured:
    """Alternate captions with the run that `measure_starts` left."""
    found = rows_to_measure(model, CAPTIONS, speed_ups)
    if not found:
        return found
    with closing(Session("kernel_steps", sys.executable)) as session:
        session.ask(run=str(folder / "run"), pixels=224 if "224" in model else 64)
        for repeat in range(CAPTION_ROUNDS):
            for (name, work), sides in found.items():
                for is_on in (True, False) if repeat % 2 else (False, True):
                    n_images = int(work.split()[0])
                    for _ in range(SINGLE_CAPTIONS if n_images == 1 else 1):
                        asked = {"plain": "" if is_on else name, "images": n_images}
                        sides[not is_on].extend(session.ask(**asked)["times"])
    return found


def measure(
    model: str, data: dict[str, Path], folder: Path, *, limit_s: float, starts: int, speed_ups: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row for each speed-up and work that can act on a model."""
    found = measure_steps(model, data, folder, limit_s, speed_ups)
    found |= measure_starts(model, data, folder, starts, speed_ups)
    found |= measure_captions(model, folder, speed_ups)
    return [row_of(name, work, model, sides) for (name, work), sides in found.items()]


def verdicts(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the models on which each speed-up pays, in any work: those that were removed, too."""
    names = dict.fromkeys([*SPEED_UPS, *(row["speed_up"] for row in rows)])
    paid = {(row["speed_up"], row["model"]) for row in rows if pays(row)}
    return {name: [model for model in MODELS if (name, model) in paid] for name in names}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return all that was measured; "-" where a speed-up cannot act on a model."""
    measured = {row["model"] for row in rows}
    header = (
        f"{'speed-up':<20}{'work':<13}{'model':<30}{'with, ms':>9}{'without':>9}{'gain':>8}{'fastest':>9}{'of CPU':>9}"
    )
    lines = [f"{header}   verdict"]
    for name, work, _models in ROWS:
        for model in (model for model in MODELS if model in measured):
            cells = f"{'-':>9}{'-':>9}{'-':>8}{'-':>9}{'-':>9}"
            for row in (r for r in rows if (r["speed_up"], r["work"], r["model"]) == (name, work, model)):
                times = [1000 * row[side][f"{row['clock']}_median_s"] for side in ("with", "without")]
                cells = f"{times[0]:>9.1f}{times[1]:>9.1f}{row['gain']['median']:>8.1%}{row['gain']['fastest']:>9.1%}"
                cells += f"{row['gain']['cpu']:>9.1%}{'   pays' if pays(row) else ''}"
            lines.append(f"{name:<20}{work:<13}{MODELS[model][0]:<30}{cells}")
    lines += [f"{name}: pays on {len(on)} of {len(measured)} models" for name, on in verdicts(rows).items()]
    return "\n".join(lines)


def main(line: list[str]) -> None:
    """Measure, print the table and write benchmarks/results/kernels.json. What is left out or was removed keeps its last result."""
    options = argparse.ArgumentParser(prog="python -m benchmarks kernels")
    options.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options.add_argument("--speed-ups", nargs="+", choices=SPEED_UPS, default=list(SPEED_UPS))
    options.add_argument("--seconds", type=float, default=80, help="for the steps of a model")
    options.add_argument("--starts", type=int, default=3, help="on each side")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch: 1 on a busy machine")
    chosen = options.parse_args(line)
    torch.set_num_threads(chosen.threads)  # `Session` hands it on
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    rows: list[dict[str, Any]] = result("kernels").get("rows", [])
    with tempfile.TemporaryDirectory() as temporary:
        data = photographs(Path(temporary) / "data", N_IMAGES)
        for model in chosen.models:
            folder = Path(temporary) / model
            folder.mkdir()
            begun = time.monotonic()
            of_model = measure(
                model, data, folder, limit_s=chosen.seconds, starts=chosen.starts, speed_ups=chosen.speed_ups
            )
            again = {(row["speed_up"], row["work"], model) for row in of_model}
            rows = [row for row in rows if (row["speed_up"], row["work"], row["model"]) not in again] + of_model
            print(f"{table(of_model)}\n({MODELS[model][0]}: {time.monotonic() - begun:.0f} s)\n", flush=True)
            save("kernels", {"pays": PAYS, "on_models": ON_MODELS, "rows": rows})
    print(table(rows))
