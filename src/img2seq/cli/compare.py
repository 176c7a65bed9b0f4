"""`img2seq compare`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_verb, set_run


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "compare",
        help="compare runs: curves, losses, captions",
        examples=[
            "img2seq compare runs/demo/text runs/demo/image",
            "img2seq compare runs/demo/text runs/demo/image --output comparison/",
        ],
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the first is the baseline")
    parser.add_argument(
        "--output", metavar="DIR", help="where the report goes (default: compare_<names> beside the first run)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a comparison of other runs, or of these before they changed"
    )
    set_run(parser, run, needs=("matplotlib",))


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Compare runs and print the summary."""
    from img2seq.report.comparison_page import compare

    print(compare(arguments.runs, arguments.output, overwrite=arguments.overwrite))
    return 0
