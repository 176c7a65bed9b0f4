"""`img2seq runs show` and `img2seq runs verify`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_verb, set_run


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "runs",
        help="show the state of runs, or re-check their files",
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
