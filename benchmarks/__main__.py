"""Run benchmarks by name: `python -m benchmarks NAME [options]`; `make bench` runs them all, about an hour on two cores.

After all of them the table of comparisons is printed, and docs/performance.md and its figures are written. The whole tutorial on
both sides, twenty minutes more, the ablation of kernels, fifteen, and libraries beside ours are run by their names alone.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time

NAMES = (
    "training",
    "hugging_face",
    "decoding",
    "encoder",
    "images",
    "limits",
    "growth",
    "metrics",
    "processes",
    "serving",
)
BY_NAME_ALONE = (
    "tutorial",
    "kernels",
    "libraries",
    "neighbour",
    "shards",
    "rewards",
    "javascript",
    "flickr8k",
    "transfer",
    "other_pictures",
)


def main() -> None:
    """Run the benchmark named on the command line, or all of them."""
    name, *options = sys.argv[1:] or ["all"]
    if name not in ("all", *NAMES, *BY_NAME_ALONE):
        sys.exit(f"benchmarks: expected one of all, {', '.join((*NAMES, *BY_NAME_ALONE))}; found {name!r}")
    if name != "all":
        importlib.import_module(f"benchmarks.{name}").main(options)
        return
    begun = time.monotonic()
    failed: list[str] = []
    for place, one in enumerate(NAMES, 1):
        passed_min = (time.monotonic() - begun) / 60
        print(f"\n== {one} ({place} of {len(NAMES)}, {passed_min:.0f} minutes passed)", flush=True)
        # A process of its own: the peak of a child's memory begins, on Linux, with that of whoever started it.
        done = subprocess.run([sys.executable, "-m", "benchmarks", one, *options], check=False)
        if done.returncode:
            failed.append(one)  # such as a peer whose Python is not installed: the others can still be had
    from benchmarks import page, summary

    page.write()
    print(f"\n{summary.table(summary.rows())}\n\nwritten: docs/performance.md")
    if failed:
        sys.exit(f"benchmarks: could not be run, their last results are shown: {', '.join(failed)}")


if __name__ == "__main__":
    main()
