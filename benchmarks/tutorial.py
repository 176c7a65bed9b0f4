"""The whole tutorial from start to end, side by side with EIR: three epochs over all photographs, once on each side.

    python -m benchmarks tutorial        about twenty minutes; not among those that `make bench` runs

Text alone and image+text, the tutorial's four files, the same photographs and split. Ours takes the vocabulary that EIR
made, so that both validation losses are over the same tokens. The cache is empty at the start.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import result, save
from benchmarks.photographs import VALID, photographs
from benchmarks.training import BATCH, arguments, figures, run

EPOCHS = 3
KINDS = {"text": "text only", "image": "image+text"}


def main(line: list[str]) -> None:
    """Run both sides, print the table and write benchmarks/results/tutorial.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks tutorial", description=__doc__)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="others keep their last result")
    chosen = options.parse_args(line).kinds
    found: dict[str, Any] = result("tutorial").get("kinds", {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = photographs(folder / "data")
        interval = (len(data["one"].read_text(encoding="utf-8").splitlines()) - 1 - VALID) // BATCH
        for kind in chosen:
            for side in ("eir", "ours"):
                output = folder / f"{side}_{kind}"
                given = arguments(kind, data, output, epochs=EPOCHS, interval=interval, workers=2)
                if side == "ours":
                    vocabulary = next((folder / f"eir_{kind}" / "serializations").rglob("vocab.json"))
                    given.append(f"--output.output_type_info.vocab_file={vocabulary}")
                    given.append(f"--globals.basic_experiment.cache_folder={folder / 'cache'}")
                of_side = figures(run(side, given, output), BATCH) | {"valid_loss": valid_loss(side, output)}
                found[kind] = found.get(kind, {}) | {side: of_side}
                print(f"{KINDS[kind]:<12}{side:<6}{of_side['whole_s']:>8.0f} s, validation loss {of_side['valid_loss']:.4f}", flush=True)  # fmt: skip
    save("tutorial", {"epochs": EPOCHS, "interval": interval, "kinds": found})


def valid_loss(side: str, output: Path) -> float:
    """Return the last validation loss, in nats per token."""
    if side == "ours":
        return float((output / "history_valid.csv").read_text().splitlines()[-1].split(",")[3])
    return float((output / "validation_average_history.log").read_text().splitlines()[-1].split(",")[1])
