"""Run `img2seq train` with time stamps around its steps, evaluations and samples, as timed/run_eir.py does for EIR.

BENCHMARK_START=<time.time()> python run_ours.py EVENTS.json <arguments of img2seq train>
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """Train, and write the events where the first argument says."""
    from img2seq.cli import main as cli
    from img2seq.model.cpu.collector import collector_paused

    with collector_paused():  # as the verb imports them
        from img2seq.training import loop
        from img2seq.training.samples import SampleWriter

    events: dict[str, Any] = {
        "start": float(os.environ["BENCHMARK_START"]),
        "steps": [],
        "evaluations": [],
        "samples": [],
    }

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            events.setdefault("cpu_before_s", time.process_time())
            begun = time.time()
            result = function(*arguments, **options)
            events[name].append([begun, time.time()])
            return result

        return run

    loop.Trainer._step = timed("steps", loop.Trainer._step)  # type: ignore[method-assign]
    vars(loop)["image_losses"] = timed("evaluations", vars(loop)["image_losses"])
    SampleWriter.write = timed("samples", SampleWriter.write)  # type: ignore[method-assign]
    code = cli.run(["train", *sys.argv[2:]])
    events["end"] = time.time()
    events["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(sys.argv[1]).write_text(json.dumps(events))
    return code


if __name__ == "__main__":
    sys.exit(main())
