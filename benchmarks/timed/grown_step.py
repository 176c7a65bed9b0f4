"""Time and memory of training at one size, in a process of its own, so that its peak memory is its own.

python grown_step.py '{"images": ..., "captions": ..., ...}': the arguments of `benchmarks.steps.experiment`, and `steps`.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

PATHS = ("images", "captions", "valid_ids", "folder", "vocabulary")
WARM_STEPS = 2


def main() -> None:
    """Print what was measured as JSON."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    n_steps = request.pop("steps")

    from benchmarks.limits import KernelRecorder
    from benchmarks.steps import endless, experiment, step, trainer

    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    given: dict[str, Any] = {name: Path(value) if name in PATHS else value for name, value in request.items()}
    begun = time.perf_counter()
    made = trainer(experiment(**given), given["folder"] / "run")
    set_up_s = time.perf_counter() - begun
    begun = time.perf_counter()
    works = endless(made)
    next(works)
    first_batch_s = time.perf_counter() - begun
    for work in itertools.islice(works, WARM_STEPS):
        step(made, work)
    seconds, captions, tokens = [], 0, 0
    begun = time.perf_counter()
    for work in itertools.islice(works, n_steps):
        seconds.append(step(made, work)[0] / work.n_captions)
        captions, tokens = captions + work.n_captions, tokens + work.n_tokens
    with_data_s = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    work = next(works)
    with KernelRecorder() as recorder:
        step(made, work)
    print(json.dumps({
        "parameters": sum(p.numel() for p in made.model.parameters()), "n_captions": made.prepared.train.n_captions,
        "set_up_s": set_up_s, "first_batch_s": first_batch_s, "step_s_per_caption": min(seconds),
        "s_per_caption": with_data_s / captions, "tokens_per_caption": tokens / captions,
        "flop_per_caption": (recorder.flops + recorder.attention_flops) / work.n_captions, "peak_bytes": peak, "empty_bytes": empty,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
