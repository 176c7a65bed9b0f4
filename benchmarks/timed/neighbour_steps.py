"""Our training steps from cached features, as in examples/flickr8k, and captions of one picture; in a process of its own.

The first line of standard input is where the experiment and its folder are; each of the others asks for steps or captions for
so many seconds, and is answered with how many a second there were.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from img2seq.model.cpu.cores import bind_threads

bind_threads()  # before torch is imported, as the command line does

from benchmarks.steps import endless, step, trainer  # noqa: E402
from img2seq.config.load import load_config  # noqa: E402
from img2seq.inference.captioner import Captioner  # noqa: E402


def main() -> None:
    """Answer until standard input ends."""
    request = json.loads(sys.stdin.readline())
    captioner: Any = Captioner.load(request["run"]) if "run" in request else None
    if captioner is None:
        made = trainer(load_config(request["experiment"]), Path(request["folder"]))
        works = endless(made)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        seconds, done, begun = json.loads(line)["seconds"], 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            if captioner is None:
                work = next(works)
                step(made, work)
                done += work.n_captions
            else:
                captioner.caption(request["picture"])
                done += 1
        print(json.dumps({"per_s": done / (time.perf_counter() - begun)}), flush=True)


if __name__ == "__main__":
    main()
