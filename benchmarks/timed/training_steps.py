"""Our training steps, and the batches they are made of as one file for a peer. Answers JSON lines on standard input.

The first line is the arguments of `benchmarks.steps.experiment`, and `batches`, the file to write; each of the others asks for
steps, which are answered with their seconds and losses.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.steps import endless, experiment, step, trainer
from img2seq.training.work import Work

PATHS = ("images", "captions", "valid_ids", "folder", "vocabulary")
IGNORED = -100  # the target of a padded place, in transformers


def as_arrays(work: Work) -> dict[str, NDArray[Any]]:
    """Return pixels, captions padded to the longest, and each caption's image."""
    (batch,) = work.batches
    positions = batch.positions.numpy()
    rows = np.cumsum(positions == 0) - 1  # a caption a row
    padded = np.full((rows[-1] + 1, positions.max() + 1), IGNORED)
    padded[rows, positions] = batch.target_ids.numpy()
    (pixels,) = batch.pixels.values()
    return {
        "pixels": pixels.numpy(),
        "captions": padded,
        "image": np.repeat(np.arange(len(batch.captions_of_image)), batch.captions_of_image),
    }


def main() -> None:
    """Answer until standard input ends."""
    request = json.loads(sys.stdin.readline())
    file, n_batches = Path(request.pop("batches")), int(request.pop("n_batches"))
    given: dict[str, Any] = {name: Path(value) if name in PATHS else value for name, value in request.items()}
    made = trainer(experiment(**given), given["folder"])
    works = list(itertools.islice(endless(made), n_batches))
    np.savez(file, **{f"{name}_{i}": a for i, work in enumerate(works) for name, a in as_arrays(work).items()})  # type: ignore[arg-type]
    parameters = sum(p.numel() for p in made.model.parameters())
    print(json.dumps({"parameters": parameters, "vocabulary": made.prepared.facts.vocabulary}), flush=True)
    ahead = itertools.cycle(works)
    for line in sys.stdin:
        taken = [step(made, next(ahead)) for _ in range(json.loads(line)["steps"])]
        print(json.dumps({"seconds": [s for s, _ in taken], "losses": [loss for _, loss in taken]}), flush=True)


if __name__ == "__main__":
    main()
