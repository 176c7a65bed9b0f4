"""`img2seq data convert`."""

from __future__ import annotations

import argparse
import sys

from img2seq.cli.arguments import Verbs, add_read_arguments, add_verb, read_options_of, set_run, whole_number

FORMATS = ("csv", "coco", "imagefolder", "webdataset", "parquet")


def add_action(actions: Verbs) -> None:
    """Add the action to `img2seq data`."""
    parser = add_verb(
        actions,
        "convert",
        help="write captions and pictures of any format as one of five",
        description="IDs, captions and their order, splits and the pictures' bytes stay as they are. An interrupted command may be repeated: "
        "it continues. Exit code 2: something cannot be used; nothing was written.",
        examples=[
            "img2seq data convert captions.csv --images photos/ --to parquet data/parquet",
            "img2seq data convert captions.csv --to coco data/coco",
        ],
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="captions of any format: a file, a folder or a quoted pattern of shards"
    )
    parser.add_argument("target", metavar="TARGET", help="folder to write, which is empty or not there")
    parser.add_argument(
        "--to", choices=FORMATS, required=True, help="format to write (default: none, it must be named)"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder or shards with the pictures (default: those that the source names or holds, else a folder images beside it)",
    )
    parser.add_argument(
        "--shard-size",
        type=whole_number(1, 10**9),
        default=1000,
        metavar="N",
        help="images in a shard of webdataset and parquet (1 to 1000000000, default: 1000)",
    )
    parser.add_argument(
        "--on-bad-data",
        choices=("error", "skip"),
        default="error",
        help="list what cannot be used and write nothing, or leave it out (default: error)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier convert wrote there, and nothing else"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(0, 256),
        default=2,
        metavar="N",
        help="pictures looked at side by side before any is written (0 to 256, default: 2)",
    )
    add_read_arguments(parser)
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Convert a data set and print what was written."""
    from pathlib import Path

    from img2seq.datasets.convert.convert import Conversion, convert
    from img2seq.progress import Announcer

    conversion = Conversion(
        arguments.source, Path(arguments.target), arguments.to, images=arguments.images, options=read_options_of(arguments),
        shard_size=arguments.shard_size, on_bad_data=arguments.on_bad_data, overwrite=arguments.overwrite,
        workers=arguments.workers,
    )  # fmt: skip
    try:
        print(convert(conversion, Announcer(bars=sys.stderr.isatty())))
    except KeyboardInterrupt:
        print("the same command continues", file=sys.stderr)
        raise
    return 0
