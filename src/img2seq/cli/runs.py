"""`img2seq runs show`, `img2seq runs verify` and `img2seq runs average`."""

from __future__ import annotations

import argparse
import sys

from img2seq.cli.arguments import Verbs, add_verb, set_run, whole_number
from img2seq.extras import MODEL


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "runs",
        help="show the state of runs, re-check their files, or average their checkpoints",
        examples=["img2seq runs show runs/demo/text runs/demo/image", "img2seq runs verify runs/demo/image"],
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = add_verb(
        actions,
        "show",
        help="the state of each run on one screen",
        examples=["img2seq runs show runs/demo/image", "img2seq runs show runs/demo/text runs/demo/image"],
    )
    verify = add_verb(
        actions,
        "verify",
        help="re-check every file that is used again; exit code 2 if one is damaged",
        examples=["img2seq runs verify runs/demo/image", "img2seq runs verify runs/demo/text runs/demo/image"],
    )
    for action, run_action in ((show, run_show), (verify, run_verify)):
        action.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
        set_run(action, run_action)
    average = add_verb(
        actions,
        "average",
        help="write the mean of a run's last checkpoints as a run of its own, to caption and to evaluate with",
        examples=[
            "img2seq runs average runs/demo/image runs/demo/average --last 2",
            "img2seq runs average runs/demo/image runs/averaged --last 2",
        ],
    )
    average.add_argument("run_folder", metavar="RUN", help="a run")
    average.add_argument("target", metavar="DIR", help="folder to write, new or empty")
    average.add_argument(
        "--last", type=whole_number(2, 1000), default=3, metavar="N", help="newest checkpoints (2 to 1000; default: 3)"
    )
    set_run(average, run_average, needs=MODEL)


def run_show(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print the state of each run."""
    from img2seq.report.run_state import describe_run

    print("\n\n".join(describe_run(path) for path in arguments.runs))
    return 0


def run_verify(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Check the files of each run; exit code 2 if one is damaged."""
    from img2seq.report.run_state import verify_run

    found = [verify_run(path) for path in arguments.runs]
    print("\n\n".join(text for text, _ in found))
    return 0 if all(whole for _, whole in found) else 2


def run_average(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Average checkpoints, and say what was written."""
    from img2seq.export.average import average_run
    from img2seq.progress import Announcer

    announce = Announcer(bars=sys.stderr.isatty())
    print(average_run(arguments.run_folder, arguments.target, last=arguments.last, announce=announce))
    return 0
