"""Run benchmarks by name: `python -m benchmarks NAME [options]`; `make bench` runs them all, most of an hour on two cores.

After all of them the table of comparisons is printed, and docs/performance.md and its figures are written. The whole tutorial on
both sides, twenty minutes more, is run by its name alone.
"""

from __future__ import annotations

import importlib
import sys
import time

NAMES = ("training", "hugging_face", "decoding", "encoder", "images", "limits", "growth", "metrics", "processes")
BY_NAME_ALONE = ("tutorial",)


def main() -> None:
    """Run the benchmark named on the command line, or all of them."""
    name, *options = sys.argv[1:] or ["all"]
    if name not in ("all", *NAMES, *BY_NAME_ALONE):
        sys.exit(f"benchmarks: expected one of all, {', '.join((*NAMES, *BY_NAME_ALONE))}; found {name!r}")
    begun = time.monotonic()
    failed: list[str] = []
    for place, one in enumerate(NAMES if name == "all" else [name], 1):
        passed = (
            f" ({place} of {len(NAMES)}, {(time.monotonic() - begun) / 60:.0f} minutes passed)" if name == "all" else ""
        )
        print(f"\n== {one}{passed}", flush=True)
        try:
            importlib.import_module(f"benchmarks.{one}").main(options)
        except SystemExit as stop:
            if name != "all" or not stop.code:
                raise
            failed.append(one)  # such as a peer whose Python is not installed: the others can still be had
            print(f"{one}: {stop.code}", file=sys.stderr)
    if name == "all":
        from benchmarks import page, summary

        page.write()
        print(f"\n{summary.table(summary.rows())}\n\nwritten: docs/performance.md")
    if failed:
        sys.exit(f"benchmarks: could not be run, their last results are shown: {', '.join(failed)}")


if __name__ == "__main__":
    main()
