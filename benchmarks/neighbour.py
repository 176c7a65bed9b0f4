"""Training and captions beside other programs, with each way in which threads can wait for each other.

    python -m benchmarks neighbour [--rounds 5] [--seconds 4] [--ways ours passive]        about eight minutes

The model is that of examples/flickr8k, trained from cached features, and captions of one picture at a time by an interrupted run
of the tutorial's. Every way has a process of its own, all of them are asked in turn, alone, beside one busy program, and beside one
of low priority (nice 19). The encoder has random weights, which changes no time.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import save, show, spread
from benchmarks.peers import Session
from benchmarks.photographs import ROOT, photographs
from benchmarks.training import arguments, run
from img2seq.model.cpu.cores import SETTINGS

FLICKR8K = ROOT / "examples" / "flickr8k" / "experiment.yaml"
N_IMAGES = 900  # 500 of them for validation
WAYS: dict[str, dict[str, str]] = {
    "ours": {},  # each thread on a core of its own
    "as torch comes": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own number: a setting of threads turns ours off
    "active": {"OMP_WAIT_POLICY": "active"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NEIGHBOURS: dict[str, int | None] = {"alone": None, "busy": 0, "low priority": 19}
GOALS = {"busy": 0.4, "low priority": 0.85}


@contextmanager
def neighbour(priority: int | None) -> Iterator[None]:
    """Have a program beside us that computes all the time."""
    if priority is None:
        yield
        return
    program = subprocess.Popen([sys.executable, "-c", f"import os\nos.nice({priority})\nwhile True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


@contextmanager
def awake(session: Session) -> Iterator[None]:
    """Let one of the processes run: the threads of another that look for work all the time would be its neighbours."""
    session.process.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        session.process.send_signal(signal.SIGSTOP)


def wake_all(sessions: Iterable[Session]) -> None:
    """Let all of them run, to their end."""
    for session in sessions:
        session.process.send_signal(signal.SIGCONT)


def prepare(folder: Path) -> dict[str, dict[str, str]]:
    """Write an experiment and train a run for captions; return what the measuring program needs for each work."""
    import timm
    import yaml

    data = photographs(folder / "data", N_IMAGES)
    weights = folder / "weights.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    experiment = yaml.safe_load(FLICKR8K.read_text())
    basic, (photo,), (captions,) = (
        experiment["globals"]["basic_experiment"],
        experiment["inputs"],
        experiment["outputs"],
    )
    basic |= {"output_folder": str(folder / "run"), "cache_folder": str(folder / "cache"), "manual_valid_ids_file": str(data["valid_ids"])}  # fmt: skip
    photo["input_info"]["input_source"] = str(data["images"])
    photo["input_type_info"]["horizontal_flip"] = False
    photo["model_config"]["pretrained_weights"] = str(weights)
    captions["output_info"]["output_source"] = str(data["five"])
    captions["output_type_info"]["min_freq"] = 1  # as many words as all of the photographs have that occur five times
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    tutorial = folder / "tutorial"
    line = arguments("image", data, tutorial, epochs=1, interval=1, workers=0)  # a checkpoint is best once evaluated
    run("ours", [*line, "--globals.basic_experiment.max_time_s=1"], tutorial)
    picture = next(iter(sorted(data["images"].iterdir())))
    return {
        "training": {"experiment": str(folder / "experiment.yaml"), "folder": str(folder)},
        "one picture": {"run": str(tutorial), "picture": str(picture)},
    }


def measure(works: dict[str, dict[str, str]], ways: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Ask every way in turn; return a row for each work and way."""
    rows: list[dict[str, Any]] = []
    for work, request in works.items():
        with ExitStack() as stack:
            sessions = {
                way: stack.enter_context(closing(Session("neighbour_steps", sys.executable, WAYS[way]))) for way in ways
            }
            for session in sessions.values():
                session.ask(**request)
                session.ask(seconds=1)
                session.process.send_signal(signal.SIGSTOP)
            stack.callback(wake_all, sessions.values())  # before they are closed
            found: dict[str, dict[str, list[float]]] = {way: {name: [] for name in NEIGHBOURS} for way in ways}
            for _ in range(rounds):
                for name, priority in NEIGHBOURS.items():
                    with neighbour(priority):
                        for way, session in sessions.items():
                            with awake(session):
                                found[way][name].append(session.ask(seconds=seconds)["per_s"])
        for way in ways:
            spreads = {name: spread(values) for name, values in found[way].items()}
            rows.append({"work": work, "way": way} | spreads)
            cells = "".join(f"{show(one):>22}" for one in spreads.values())
            shares = "".join(f"{spreads[name]['median'] / spreads['alone']['median']:>7.2f}" for name in GOALS)
            print(f"{work:<12} {way:<15}{cells}{shares}", flush=True)
    return rows


def main(line: list[str]) -> None:
    """Print the table and write it to benchmarks/results/neighbour.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks neighbour", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options.add_argument("--folder", type=Path, help="keep what is prepared there")
    chosen = options.parse_args(line)
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        works = prepare(folder.resolve())
        print(
            f"{'a second':<28}"
            + "".join(f"{name:>22}" for name in NEIGHBOURS)
            + "".join(f"{goal:>7}" for goal in GOALS.values())
        )
        rows = measure(works, chosen.ways, chosen.rounds, chosen.seconds)
    save("neighbour", {"rows": rows, "goals": GOALS})
