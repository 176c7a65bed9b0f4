"""What each hand-written speed-up brings to a whole step, a start and captions: with and without it, on five models.

    python -m benchmarks kernels [--models text ...] [--seconds 60] [--starts 4]        about fifteen minutes

Every model is trained by the tutorial's four files, with overrides. Steps alternate within one process, one with the speed-up and
one without, on the same batches (IMG2SEQ_PLAIN is read at use); `memory` and `threads` (two `dataloader_workers` against none),
which hold for a process, have a second one each. `threads` is measured with the wait for each batch. A start is a process of its own from its beginning to its first step: for
`threads` with an empty pixel cache. Captions are those of a finished run through the Python API. The gain is how much longer it
takes without: by medians, and by the fastest tenth, which other work on the machine disturbs least. A speed-up pays for itself
where both say PAYS, on two models.
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

from benchmarks.figures import result, save
from benchmarks.peers import Session
from benchmarks.photographs import photographs
from benchmarks.training import arguments, run

OF_224 = ["basic_experiment.batch_size=30", "basic_experiment.captions_per_image=5"]
MODELS = {  # name: title, kind of the tutorial's, further overrides
    "image": ("tutorial, 1 caption", "image", []),
    "five": ("tutorial, 5 captions", "five", []),
    "text": ("text only", "text", []),
    "resnet18_224": ("ResNet-18 at 224", "five", [*(f"globals.{one}" for one in OF_224), "inputs_resnet18.input_type_info.size=[224]"]),
    "vit_small_224": ("ViT-small at 224", "five", [
        *(f"globals.{one}" for one in OF_224), "inputs_resnet18.input_type_info.size=[224]",
        "inputs_resnet18.model_config.model_type=vit_small_patch16_224",
    ]),
}  # fmt: skip
WITH_IMAGES = ("image", "five", "resnet18_224", "vit_small_224")
CONVOLUTIONS = ("image", "five", "resnet18_224")
# Speed-up, work, and the models it can act on there.
ROWS: list[tuple[str, str, Sequence[str]]] = [
    ("winograd", "step", CONVOLUTIONS),
    ("taps", "step", ("image", "five")),
    ("attention_products", "step", tuple(MODELS)),
    ("dropout", "step", tuple(MODELS)),
    ("adabelief_blocks", "step", tuple(MODELS)),
    ("memory", "step", tuple(MODELS)),
    ("threads", "step", tuple(MODELS)),
    ("threads", "start", WITH_IMAGES),
    ("collector", "start", tuple(MODELS)),
    ("decoding_layout", "1 caption", WITH_IMAGES),
    ("decoding_layout", "32 captions", WITH_IMAGES),
    ("onnx_encoder", "32 captions", WITH_IMAGES),
]
PAYS, ON_MODELS = 0.03, 2
N_IMAGES = 1100  # 500 of them for validation
LOADED_STEPS = 4  # in turn, for `threads`
CAPTION_ROUNDS = 12


def summarise(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the mean of the fastest tenth."""
    fastest = sorted(seconds)[: math.ceil(len(seconds) / 10)]
    return {"median_s": statistics.median(seconds), "fastest_s": statistics.mean(fastest), "runs": len(seconds)}


def gains(with_it: dict[str, float], without: dict[str, float]) -> dict[str, float]:
    """Return how much longer it takes without, as a share, by either measure."""
    return {name: without[f"{name}_s"] / with_it[f"{name}_s"] - 1 for name in ("median", "fastest")}


def pays(row: dict[str, Any]) -> bool:
    """Return whether a speed-up brings enough to a model by both measures."""
    return bool(min(row["gain"].values()) >= PAYS)


@contextmanager
def plain(names: str) -> Iterator[None]:
    """Have these speed-ups off in every process that is started meanwhile."""
    before = os.environ.get("IMG2SEQ_PLAIN", "")
    os.environ["IMG2SEQ_PLAIN"] = names
    try:
        yield
    finally:
        os.environ["IMG2SEQ_PLAIN"] = before


def names_of(model: str, work: str) -> list[str]:
    """Return the speed-ups that act on a model in some work."""
    return [name for name, of_work, models in ROWS if of_work == work and model in models]


Measured = dict[tuple[str, str], tuple[list[float], list[float]]]  # by speed-up and work: with it, without


def measure_steps(model: str, data: dict[str, Path], folder: Path, limit_s: float) -> Measured:
    """Alternate single steps until the time is over, and steps with their loading."""
    _, kind, overrides = MODELS[model]
    given = {"kind": kind, "data": {name: str(path) for name, path in data.items()}, "folder": str(folder)}
    names = names_of(model, "step")
    found: Measured = {(name, "step"): ([], []) for name in names}
    usual, alone = (Session("kernel_steps", sys.executable) for _ in range(2))
    with plain("memory"):
        giving_back = Session("kernel_steps", sys.executable)
    with closing(usual), closing(giving_back), closing(alone):
        for session in (usual, giving_back, alone):
            workers = f"globals.basic_experiment.dataloader_workers={0 if session is alone else 2}"
            session.ask(**given | {"overrides": [*overrides, workers]})
        begun, n_rounds = time.monotonic(), 0
        while n_rounds < 4 or time.monotonic() - begun < limit_s:
            for name in names:
                asked = {"loaded": LOADED_STEPS} if name == "threads" else {"steps": 1}
                if name == "threads" and n_rounds % 3:
                    continue  # it takes several steps each time
                of_process = {"memory": (giving_back, ""), "threads": (alone, "")}
                sides = {True: (usual, ""), False: of_process.get(name, (usual, name))}
                for is_on in (True, False) if n_rounds % 2 else (False, True):
                    session, off = sides[is_on]
                    found[name, "step"][not is_on].extend(session.ask(plain=off, **asked)["seconds"])
            n_rounds += 1
    return found


def measure_starts(model: str, data: dict[str, Path], folder: Path, rounds: int) -> Measured:
    """Alternate whole processes, from their beginning to their first step."""
    _, kind, overrides = MODELS[model]
    found: Measured = {(name, "start"): ([], []) for name in names_of(model, "start")}

    def start_s(off: str, cache: Path) -> float:
        output = folder / "run"
        workers = 0 if off == "threads" else 2
        line = arguments(kind, data, output, epochs=1, interval=1000, workers=workers)
        line += [f"--{one}" for one in (*overrides, f"globals.basic_experiment.cache_folder={cache}")]
        with plain("" if off == "threads" else off):
            events = run("ours", [*line, "--max_time", "0.001"], output)
        return float(events["steps"][0][0] - events["start"])

    start_s("", folder / "cache")  # fills caches
    for repeat in range(rounds):
        for name, work in found:
            for is_on in (True, False) if repeat % 2 else (False, True):
                cache = folder / "cache"
                if name == "threads":
                    cache = folder / "empty"
                    shutil.rmtree(cache, ignore_errors=True)
                found[name, work][not is_on].append(start_s("" if is_on else name, cache))
    return found


def measure_captions(model: str, folder: Path) -> Measured:
    """Alternate captions with a run that `measure_starts` left."""
    if model not in WITH_IMAGES:
        return {}
    found: Measured = {(name, work): ([], []) for name, work, models in ROWS if "caption" in work and model in models}
    with closing(Session("kernel_steps", sys.executable)) as session:
        session.ask(run=str(folder / "run"), pixels=224 if "224" in model else 64)
        for repeat in range(CAPTION_ROUNDS):
            for (name, work), sides in found.items():
                for is_on in (True, False) if repeat % 2 else (False, True):
                    asked = {"plain": "" if is_on else name, "images": int(work.split()[0])}
                    sides[not is_on].extend(session.ask(**asked)["seconds"])
    return found


def measure(model: str, data: dict[str, Path], folder: Path, limit_s: float, starts: int) -> list[dict[str, Any]]:
    """Return a row for each speed-up and work that can act on a model."""
    found = measure_steps(model, data, folder, limit_s) | measure_starts(model, data, folder, starts)
    found |= measure_captions(model, folder)
    rows = []
    for (name, work), sides in found.items():
        with_it, without = (summarise(side) for side in sides)
        row = {"speed_up": name, "work": work, "model": model, "with": with_it, "without": without}
        rows.append(row | {"gain": gains(with_it, without)})
    return rows


def verdicts(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the models on which each speed-up pays, in any work."""
    return {
        name: [model for model in MODELS if any(pays(row) for row in rows if (row["speed_up"], row["model"]) == (name, model))]
        for name in dict.fromkeys(name for name, _, _ in ROWS)
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return all that was measured; "-" where a speed-up cannot act on a model."""
    on = verdicts(rows)
    lines = [
        f"{'speed-up':<20}{'work':<13}{'model':<22}{'with, ms':>10}{'without':>10}{'gain':>8}{'of fastest':>12}   verdict"
    ]
    for name, work, models in ROWS:
        for model, (title, _, _) in MODELS.items():
            row = next((r for r in rows if (r["speed_up"], r["work"], r["model"]) == (name, work, model)), None)
            if row is None:
                cells = f"{'-':>10}{'-':>10}{'-':>8}{'-':>12}" if model not in models else ""
            else:
                times = [1000 * row[side]["median_s"] for side in ("with", "without")]
                cells = (
                    f"{times[0]:>10.1f}{times[1]:>10.1f}{row['gain']['median']:>8.1%}{row['gain']['fastest']:>12.1%}"
                )
                cells += "   pays" if pays(row) else ""
            if cells:
                lines.append(f"{name:<20}{work:<13}{title:<22}{cells}")
    lines += [f"{name}: pays on {len(models)} of {len(MODELS)} models" for name, models in on.items()]
    return "\n".join(lines)


def main(line: list[str]) -> None:
    """Measure, print the table and write benchmarks/results/kernels.json. Models that are left out keep their last result."""
    options = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    options.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options.add_argument("--seconds", type=float, default=60, help="for the steps of a model")
    options.add_argument("--starts", type=int, default=4, help="on each side")
    chosen = options.parse_args(line)
    rows: list[dict[str, Any]] = [row for row in result("kernels").get("rows", []) if row["model"] not in chosen.models]
    with tempfile.TemporaryDirectory() as temporary:
        data = photographs(Path(temporary) / "data", N_IMAGES)
        for model in chosen.models:
            folder = Path(temporary) / model
            folder.mkdir()
            begun = time.monotonic()
            of_model = measure(model, data, folder, chosen.seconds, chosen.starts)
            rows += of_model
            print(f"{table(of_model)}\n({model}: {time.monotonic() - begun:.0f} s)\n", flush=True)
            save("kernels", {"pays": PAYS, "on_models": ON_MODELS, "rows": rows})
    print(table(rows))
