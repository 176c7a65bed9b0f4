"""`img2seq init`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_read_arguments, add_verb, read_options_of, set_run


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "init",
        help="write a configuration that fits your photographs and captions",
        description="Look at photographs and captions, say what was found, and write a commented experiment file that trains as it is.",
        examples=[
            "img2seq init photos/ captions.csv --output photos.yaml",
            "img2seq init photos/ captions.csv --output named.yaml --id-column ID --caption-columns Sequence",
        ],
    )
    parser.add_argument(
        "photos",
        metavar="PHOTOS",
        help="a folder of images, or a file, folder or quoted pattern of shards that holds them",
    )
    parser.add_argument(
        "table",
        nargs="?",
        metavar="TABLE",
        help="captions of any format (default: those in PHOTOS, else the one table in or beside it)",
    )
    parser.add_argument(
        "--output", default="experiment.yaml", metavar="FILE", help="the file to write (default: experiment.yaml)"
    )
    parser.add_argument(
        "--pretrained-run",
        metavar="RUN",
        help="begin with a captioner that was trained on other photographs: a run, or a lean export of one (default: none)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_read_arguments(parser)
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Write the experiment file; print what was found and the commands that come next."""
    options = read_options_of(arguments)
    from img2seq.start.init import init

    said = init(
        arguments.photos,
        arguments.table,
        arguments.output,
        options=options,
        pretrained_run=arguments.pretrained_run,
        overwrite=arguments.overwrite,
    )
    print(said)
    return 0
