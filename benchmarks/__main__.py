"""Run benchmarks by name: `python -m benchmarks NAME [options]`; `make bench` runs them all."""

from __future__ import annotations

import importlib
import sys

NAMES = ("training", "hugging_face", "decoding", "encoder", "images", "limits", "metrics", "processes")


def main() -> None:
    """Run the benchmark named on the command line, or all of them."""
    name, *options = sys.argv[1:] or ["all"]
    if name != "all" and name not in NAMES:
        sys.exit(f"benchmarks: expected one of all, {', '.join(NAMES)}; found {name!r}")
    for one in NAMES if name == "all" else [name]:
        print(f"\n== {one}", flush=True)
        importlib.import_module(f"benchmarks.{one}").main(options)


if __name__ == "__main__":
    main()
