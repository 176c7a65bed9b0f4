"""`img2seq caption`."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import takewhile
from typing import TYPE_CHECKING

from img2seq.cli.arguments import (
    Verbs,
    add_decoding_arguments,
    add_read_arguments,
    add_verb,
    decoding_of,
    read_options_of,
    set_run,
)
from img2seq.config.decoding import Decoding
from img2seq.config.ranges import names_in_words
from img2seq.errors import ConfigError, did_you_mean, shown, shown_all
from img2seq.model.cpu.collector import collector_paused

if TYPE_CHECKING:
    from img2seq.inference.captioner import Captioner
    from img2seq.report.caption_page import About, CaptionPage

FORM_OF_ENDING = {"": "text", ".txt": "text", ".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}
STANDARD_OUTPUT = "-"


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "caption",
        help="caption images: files, folders, patterns, a list",
        examples=[
            "img2seq caption runs/demo/image photo.jpg --beam-size 3",
            "img2seq caption runs/demo/image photos/ --output captions.csv --html gallery.html",
        ],
    )
    parser.add_argument(
        "run_folder",
        metavar="RUN",
        help="a finished run, an export, or one on the hub: hf:OWNER/NAME. More of them may follow before the first PATH: their "
        "probabilities are averaged, token by token (same tokenizer)",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image files, folders, quoted patterns, lists of pictures (captions of any format, or a CSV of paths; relative to the "
        "list), shards of pictures (.tar, .parquet), or - for standard input: paths, one a line, or one picture",
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="where the pictures are that lists name (default: beside the list)"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write there: .txt, .jsonl, .csv or .json for COCO results; - is standard output (default: standard output)",
    )
    parser.add_argument(
        "--format", choices=("text", "jsonl", "csv", "coco"), help="default: by the ending of --output, else text"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write one page of pictures and captions there, with the certainty of each word, in place of standard output (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted output file")
    parser.add_argument("--probabilities", action="store_true", help="write log-probabilities too (jsonl, csv)")
    parser.add_argument(
        "--integer-ids", action="store_true", help="coco: write ids of digits alone as numbers, as COCO's are"
    )
    parser.add_argument(
        "--beginning", default="", metavar="TEXT", help="what every caption begins with (default: nothing)"
    )
    add_read_arguments(parser)
    add_decoding_arguments(parser)
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Caption files; exit code 1 if some failed."""
    decoding = decoding_of(arguments)  # what is wrong is said before anything is loaded
    to_file = arguments.output not in (None, STANDARD_OUTPUT)
    form = _form(arguments, decoding.n_best, to_file=to_file)
    from pathlib import Path

    with collector_paused():
        from img2seq.inference.caption_files import caption_files
        from img2seq.inference.caption_output import CaptionOutput, Layout
        from img2seq.inference.caption_paths import STANDARD_INPUT, Listed, expand, is_picture, picture_in, with_home
        from img2seq.inference.captioner import Captioner
        from img2seq.progress import Announcer

    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "utf-8":
            stream.reconfigure(errors="surrogateescape")  # a file name may be any bytes
    announce = Announcer(bars=sys.stderr.isatty())
    runs, given = _runs_and_pictures(arguments.run_folder, arguments.paths)
    picture = picture_in(sys.stdin) if STANDARD_INPUT in given else None
    one_file = len(given) == 1 and (picture is not None or is_picture(given[0]))
    output = Path(with_home(arguments.output)) if to_file else None
    paths: Iterable[str] = expand(
        given,
        sys.stdin,
        picture=picture,
        images=arguments.images,
        options=read_options_of(arguments),
        warn=announce.warn,
    )
    if picture is not None or STANDARD_INPUT not in given:
        paths = list(paths)  # wrong ones are found before the work, and the bar knows the end
    own_ids = isinstance(paths, list) and any(isinstance(path, Listed) for path in paths)
    layout = Layout(
        form, to_file or not one_file, arguments.probabilities, arguments.integer_ids,
        n_captions=decoding.n_best, own_ids=own_ids,
    )  # fmt: skip
    with CaptionOutput(output, layout, resume=arguments.resume) as file, _gallery(arguments.html) as gallery:
        captioner = Captioner.load(
            runs,
            device=arguments.device,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            mirror=arguments.mirror,
        )
        decoding = decoding_of(arguments, captioner.decoding_defaults)
        if not one_file:
            captioner.prepare_for_many()
        if gallery is not None:
            gallery.about = _about(captioner, runs, decoding, arguments.beginning, paths)
        done = caption_files(
            captioner, paths, decoding, file, beginning=arguments.beginning, picture=picture, gallery=gallery, announce=announce
        )  # fmt: skip
    written = [str(path) for path in (output, gallery and gallery.path) if path is not None]
    if written:
        announce.say(f"{done}: {' and '.join(written)}")
    elif done.n_failed:
        announce.say(f"{done}")
    return 1 if done.n_failed else 0


def _runs_and_pictures(run: str, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the runs, which come first, and what is captioned: a run's folder is never taken for one of pictures, nor the other way round.

    Raises:
        ConfigError: for a run among pictures, and where there are none.
    """
    from img2seq.run.captioning_folder import is_captioning_folder

    others = list(takewhile(is_captioning_folder, paths))
    pictures = list(paths[len(others) :])
    misplaced = [path for path in pictures if is_captioning_folder(path)]
    if misplaced or not pictures:
        found = f"the run {shown(misplaced[0])} after them" if misplaced else f"only {shown_all([run, *others])}"
        raise ConfigError(
            f"caption: expected runs, then pictures; found {found}. Pictures in a run's folder are named by a pattern, such as 'RUN/**/*.png'"
        )
    return [run, *others], pictures


def _gallery(path: str | None) -> AbstractContextManager[CaptionPage | None]:
    if path is None:
        return nullcontext()
    from pathlib import Path

    from img2seq.inference.caption_paths import with_home
    from img2seq.report.caption_page import CaptionPage

    return CaptionPage(Path(with_home(path)))


def _about(
    captioner: Captioner, runs: Sequence[str], decoding: Decoding, beginning: str, paths: Iterable[str]
) -> About:
    """Return what the page says of its captions."""
    from img2seq.report.caption_page import About
    from img2seq.run.hub import is_on_hub

    loaded = captioner.loaded.members or (captioner.loaded,)
    name = " + ".join(  # the cache names folders by commits
        run if is_on_hub(run) else one.path.name for run, one in zip(runs, loaded, strict=True)
    )
    usual = Decoding.of(captioner.decoding_defaults)
    settings = {name: value for name, value in asdict(decoding).items() if value != getattr(usual, name)}
    settings |= {"mirror": True} if captioner.loaded.mirror else {}
    n_given = len(captioner.predictor.beginning_tokens(beginning))
    folders = {os.path.dirname(path) for path in paths} if isinstance(paths, list) else set()  # noqa: PTH120  (of 10,000)
    try:
        folder = os.path.commonpath(folders) if folders else ""
    except ValueError:  # some are relative, some are not
        folder = ""
    folder = "" if folder == os.sep else folder
    return About(name, settings, folder, beginning, n_given)


def _form(arguments: argparse.Namespace, n_best: int, *, to_file: bool) -> str:
    """Return the form of the output. Raises ConfigError for an ending that stands for none, and for what a form has no place for."""
    ending = os.path.splitext(arguments.output)[1].lower() if to_file else ""  # noqa: PTH122  (pathlib is not loaded yet)
    is_page_alone = arguments.html is not None and arguments.output is None
    form: str = arguments.format or ("none" if is_page_alone else FORM_OF_ENDING.get(ending, ""))
    if not form:
        endings = names_in_words([name for name in FORM_OF_ENDING if name])
        near = did_you_mean(ending, FORM_OF_ENDING)
        raise ConfigError(
            f"--output: expected a name that ends in {endings}, or --format; found {shown(arguments.output)}.{near}"
        )
    for flag, is_given, forms in (
        ("--probabilities", arguments.probabilities, ("jsonl", "csv")),
        ("--integer-ids", arguments.integer_ids, ("coco",)),
        ("--n-best", n_best > 1 and form != "none", ("text", "jsonl", "csv")),
    ):
        if is_given and form not in forms:
            raise ConfigError(
                f"{flag}: expected --format {names_in_words(list(forms))}; found {form}, which has no place for it"
            )
    if arguments.resume and not to_file:
        raise ConfigError("--resume: expected --output FILE; standard output cannot be continued")
    return form
