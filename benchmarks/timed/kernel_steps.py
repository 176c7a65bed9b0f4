"""Training steps and captions with single speed-ups on or off, asked for in turn: IMG2SEQ_PLAIN changes within the process.

The first line of standard input says what to make: a trainer (`kind`, `data`, `folder`, `overrides`), or with `run` captioners of
a finished run. Each of the others names what runs plain, and is answered with times.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import tutorial
from benchmarks.steps import endless, step
from img2seq import Captioner

N_BATCHES = 3  # different ones, which both sides go round
WARM_STEPS, WARM_LOADED = 3, 3
TOKENS = 20  # of each caption


Times = tuple[float, float]  # seconds that passed, and seconds of the processor that this process took


def timed(function: Callable[[], object]) -> Times:
    """Return how long a call takes."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - begun, time.process_time() - begun_cpu


def steps(request: dict[str, Any]) -> Callable[[dict[str, Any]], list[Times]]:
    """Make a trainer; a request is `steps` on batches that are there, or `loaded` with the wait for each batch."""
    folder = Path(request["folder"])
    data = {name: Path(path) for name, path in request["data"].items()}
    made = tutorial(request["kind"], data, folder, overrides=request["overrides"])
    works = list(itertools.islice(endless(made), N_BATCHES))
    for work in works[:WARM_STEPS]:
        step(made, work)
    ahead = itertools.cycle(works)

    def answer(asked: dict[str, Any]) -> list[Times]:
        if "steps" in asked:
            return [timed(lambda: step(made, next(ahead))) for _ in range(asked["steps"])]
        loading = endless(made)
        return [timed(lambda: step(made, next(loading))) for _ in range(WARM_LOADED + asked["loaded"])][WARM_LOADED:]

    return answer


def captions(request: dict[str, Any]) -> Callable[[dict[str, Any]], list[Times]]:
    """Load a run once for each way it is asked for; a request captions `images` of random numbers."""
    made: dict[str, Captioner] = {}
    pixels = request["pixels"]
    pictures = list(np.random.default_rng(0).integers(256, size=(32, pixels, pixels, 3), dtype=np.uint8))

    def answer(asked: dict[str, Any]) -> list[Times]:
        def caption() -> object:
            return made[asked["plain"]].caption(pictures[: asked["images"]], min_length=TOKENS, max_length=TOKENS)

        if asked["plain"] not in made:
            made[asked["plain"]] = Captioner.load(request["run"], step=1)  # where `measure_starts` stopped it
            made[asked["plain"]].prepare_for_many()
            caption()
        return [timed(caption)]

    return answer


def main() -> None:
    """Answer until standard input ends."""
    before = os.environ.get("IMG2SEQ_PLAIN", "")  # of what cannot be changed within a process
    request = json.loads(sys.stdin.readline())
    answer = captions(request) if "run" in request else steps(request)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["IMG2SEQ_PLAIN"] = ",".join(filter(None, (before, asked["plain"])))
        print(json.dumps({"times": answer(asked)}), flush=True)


if __name__ == "__main__":
    main()
