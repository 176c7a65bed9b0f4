"""`img2seq data fetch`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from img2seq.cli.arguments import Verbs, add_verb, set_run, whole_number
from img2seq.errors import ConfigError

if TYPE_CHECKING:
    from img2seq.datasets.fetch.fetch import Plan
    from img2seq.progress import Announcer


def add_action(actions: Verbs) -> None:
    """Add the action to the verb."""
    parser = add_verb(
        actions,
        "fetch",
        help="fetch a known data set from its hosts: verified, unpacked, checked",
        description="Fetch a known data set from its hosts. Stopped at any time, the same command continues. Exit code 1: fetched, but data check found errors.",
        examples=["img2seq data fetch --list", "img2seq data fetch coco2017 data/coco2017 --dry-run"],
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the data set; --list shows the names")
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where it goes; other files there stay as they are")
    parser.add_argument("--list", action="store_true", help="show the names with sizes and licences, and end")
    parser.add_argument("--dry-run", action="store_true", help="show what would be fetched, and end")
    parser.add_argument(
        "--connections",
        type=whole_number(1, 16),
        default=4,
        metavar="N",
        help="parts of a file that are fetched side by side (1 to 16, default: 4)",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="another host that has the same files at the same paths; their SHA-256 must be the same (default: the data set's own hosts)",
    )
    parser.add_argument(
        "--keep-archives", action="store_true", help="keep the ZIP files in DIR/archives once they are unpacked"
    )
    parser.add_argument("--no-check", action="store_true", help="do not run data check at the end")
    parser.add_argument(
        "--workers",
        type=whole_number(0, 256),
        default=2,
        metavar="N",
        help="images decoded side by side by data check (0 to 256, default: 2)",
    )
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Fetch a data set, check it and print the next command."""
    from shlex import quote

    from img2seq.datasets.fetch.catalogue import find
    from img2seq.datasets.fetch.fetch import catalogue_text, fetch, plan
    from img2seq.progress import Announcer

    if arguments.list:
        print(catalogue_text())
        return 0
    if arguments.name is not None:
        find(arguments.name)
    if arguments.folder is None:
        raise ConfigError(f"{arguments.parser.prog}: expected NAME and DIR, or --list to see the names")
    planned = plan(arguments.name, arguments.folder, mirror=arguments.mirror, keeps_archives=arguments.keep_archives)
    print(planned.text(), flush=True)
    if arguments.dry_run:
        return 0
    announce = Announcer(bars=sys.stderr.isatty())
    try:
        fetch(planned, announce, connections=arguments.connections)
    except KeyboardInterrupt:
        announce.say("what was fetched is kept: the same command continues")
        raise
    code = 0 if arguments.no_check else _check(planned, announce, arguments.workers)
    data_set = planned.data_set
    paths = [quote(str(planned.folder / name)) for name in (data_set.trained_on, data_set.captions[0])]
    print(f"\nnext:\n  img2seq init {' '.join(paths)}")
    return code


def _check(planned: Plan, announce: Announcer, workers: int) -> int:
    """Print what `data check` finds, and return 1 if that are errors."""
    from img2seq.data.audit.check import check, subject_of

    data_set = planned.data_set
    paths = [str(planned.folder / name) for name in (*data_set.captions, *data_set.images)]
    audit = check(subject_of(paths, train_ids=None, valid_ids=None, min_freq=None), announce, workers=workers)
    print(audit.table())
    return 1 if audit.exit_code == 2 else 0
