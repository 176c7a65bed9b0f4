"""`img2seq data`: `check` is here, `fetch` and `convert` in files of their own."""

from __future__ import annotations

import argparse
import sys

from img2seq.cli import data_convert, data_fetch
from img2seq.cli.arguments import Verbs, add_read_arguments, add_verb, read_options_of, set_run, whole_number


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    examples = [
        "img2seq data check experiment.yaml --json findings.json",
        "img2seq data check captions.csv images/ --min-freq 5",
    ]
    parser = add_verb(verbs, "data", help="look at a data set before a model does, or fetch one", examples=examples)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = add_verb(
        actions,
        "check",
        help="decode every image, find what training would refuse or what would spoil its scores",
        description="Exit code 0: clean, or training leaves out what was found (on_bad_data: skip); 1: warnings, 2: errors.",
        examples=examples,
    )
    check.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="one experiment (.yaml), or captions of any format (files, folders, quoted patterns) and image folders",
    )
    check.add_argument("--json", metavar="FILE", help="write all that was found there (default: not written)")
    check.add_argument("--train-ids", metavar="FILE", help="one training ID a line (default: all but --valid-ids)")
    check.add_argument("--valid-ids", metavar="FILE", help="one validation ID a line (default: the experiment's split)")
    check.add_argument(
        "--min-freq",
        type=whole_number(1, 10**9),
        metavar="N",
        help="of the vocabulary (default: the experiment's, else 10)",
    )
    check.add_argument(
        "--workers",
        type=whole_number(0, 256),
        default=2,
        metavar="N",
        help="images decoded side by side (0 to 256, default: 2)",
    )
    add_read_arguments(check)
    set_run(check, run)
    data_fetch.add_action(actions)
    data_convert.add_action(actions)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Check a data set; the exit code says what was found."""
    from pathlib import Path

    from img2seq.data.audit.check import check, subject_of
    from img2seq.data.audit.findings import check_replaceable
    from img2seq.progress import Announcer
    from img2seq.run.results import check_writable
    from img2seq.run.write import write_json

    subject = subject_of(
        arguments.paths, train_ids=arguments.train_ids, valid_ids=arguments.valid_ids, min_freq=arguments.min_freq,
        options=read_options_of(arguments),
    )  # fmt: skip
    if arguments.json:  # before an hour of reading images
        check_writable(Path(arguments.json).parent)
        check_replaceable(Path(arguments.json))
    audit = check(subject, Announcer(bars=sys.stderr.isatty()), workers=arguments.workers)
    if arguments.json:
        write_json(Path(arguments.json), audit.to_json())
    print(audit.table())
    return audit.exit_code
