"""`img2seq caption`."""

from __future__ import annotations

import argparse
import codecs
import io
import sys

from img2seq.cli.arguments import Verbs, add_decoding_arguments, add_verb, batch_size_of, decoding_of, set_run
from img2seq.model.cpu.collector import collector_paused

FORMAT_OF_SUFFIX = {".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "caption",
        help="caption images: files, folders, patterns, a list",
        examples=[
            "img2seq caption runs/demo/image photo.jpg --beam-size 3",
            "img2seq caption runs/demo/image photos/ --output captions.csv --resume",
        ],
    )
    parser.add_argument("run_folder", metavar="RUN", help="a finished run")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image files, folders, quoted patterns, a CSV of paths, or - for paths on standard input",
    )
    parser.add_argument("--output", metavar="FILE", help="write there (default: standard output)")
    parser.add_argument(
        "--format", choices=("text", "jsonl", "csv", "coco"), help="default: by the ending of --output, else text"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted output file")
    parser.add_argument("--probabilities", action="store_true", help="write log-probabilities too (jsonl, csv)")
    parser.add_argument(
        "--integer-ids", action="store_true", help="coco: write ids of digits alone as numbers, as COCO's are"
    )
    parser.add_argument(
        "--beginning", default="", metavar="TEXT", help="what every caption begins with (default: nothing)"
    )
    add_decoding_arguments(parser)
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Caption files; exit code 1 if some failed."""
    decoding = decoding_of(arguments)
    from pathlib import Path

    with collector_paused():
        from img2seq.inference.caption_files import Options, caption_files, expand
        from img2seq.inference.captioner import Captioner
        from img2seq.progress import Announcer

    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "utf-8":
            stream.reconfigure(errors="surrogateescape")  # a file name may be any bytes
    form = arguments.format or FORMAT_OF_SUFFIX.get(Path(arguments.output or "").suffix, "text")
    one_file = (
        len(arguments.paths) == 1 and Path(arguments.paths[0]).is_file() and not arguments.paths[0].endswith(".csv")
    )
    options = Options(form, not (one_file and arguments.output is None), arguments.probabilities, arguments.integer_ids)
    announce = Announcer(bars=sys.stderr.isatty())
    captioner = Captioner.load(
        arguments.run_folder, device=arguments.device, batch_size=batch_size_of(arguments, decoding)
    )
    output = Path(arguments.output) if arguments.output else None
    if not one_file:
        captioner.prepare_for_many()
    n_captioned, n_failed = caption_files(
        captioner, expand(arguments.paths, sys.stdin), decoding, options,
        beginning=arguments.beginning, output=output, resume=arguments.resume, announce=announce,
    )  # fmt: skip
    if output is not None or n_failed:
        announce.say(f"{n_captioned:,} captioned, {n_failed:,} failed")
    return 1 if n_failed else 0
