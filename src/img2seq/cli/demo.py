"""`img2seq demo`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_verb, set_run, whole_number
from img2seq.extras import TRAIN


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "demo",
        help="the main job on generated pictures, in a few minutes",
        examples=["img2seq demo", "img2seq demo --output runs/demo_1 --seed 1"],
    )
    parser.add_argument(
        "--output", metavar="DIR", default="runs/demo", help="where data, runs and report go (default: runs/demo)"
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**31 - 1),
        default=0,
        metavar="N",
        help="of the scenes and of training (0 to 2147483647, default: 0)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier demo left there")
    set_run(parser, run, needs=TRAIN)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Generate scenes, train on them, compare and print the report's place."""
    from img2seq.demo.main_job import demo

    print(demo(arguments.output, seed=arguments.seed, overwrite=arguments.overwrite))
    return 0
