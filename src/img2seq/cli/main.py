"""The command line: one file a verb. The only place that turns errors into exit codes.

Exit codes: 0 done; 1 done, but some images failed; 2 wrong input, in one message; 130 and 143 interrupted, all saved.
`data check` exits with what it found: 0 nothing, 1 warnings, 2 errors.
Modules are imported by the verb that needs them, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from img2seq import __version__, extras
from img2seq.errors import ConfigError, Img2SeqError, did_you_mean, shown
from img2seq.model.cpu.collector import collector_paused

if TYPE_CHECKING:
    from img2seq.cli.arguments import Parser

VERBS = ("init", "train", "caption", "serve", "evaluate", "compare", "export", "runs", "config", "data", "demo")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next opened file would take its number and get what is printed
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without a line of our code
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be valid UTF-8
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run a verb and return its exit code."""
    try:
        known, overrides = parse(arguments)
        extras.require(known.parser.prog.removeprefix("img2seq "), known.needs)
        code: int = known.run(known, overrides)
        return code
    except Img2SeqError as error:
        if not error.already_reported:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:  # most often of a path to write, which no module can know to be wrong
        if error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {Img2SeqError(f'{where}{error.strerror}')}", file=sys.stderr)
        return 2


def build_parser(verbs: Sequence[str] = VERBS) -> Parser:
    """Return the parser of these verbs."""
    from img2seq.cli.arguments import Parser

    parser = Parser(
        prog="img2seq",
        description="Train, measure and ship models that turn an image into a sequence of words.",
        epilog="examples:\n  img2seq demo\n  img2seq caption --help",
    )
    parser.add_argument("--version", action="version", version=f"img2seq {__version__}")
    parser.set_defaults(run=_print_help, parser=parser, takes_overrides=False, needs=())
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for verb in verbs:
        import_module(f"img2seq.cli.{verb}").add_parser(subparsers)
    return parser


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of a verb and the overrides, `SECTION.KEY=VALUE` for each `--SECTION.KEY=VALUE`.

    Raises:
        ConfigError: for an argument that the verb does not take.
    """
    named = [verb for verb in VERBS if arguments[:1] == [verb]]
    with collector_paused():
        parser = build_parser(named or VERBS)
    known, rest = parser.parse_known_args(arguments)
    if not rest:
        return known, []
    from img2seq.config.overrides import NO_INPUTS

    overrides = []
    for text in rest:
        is_override = (text.startswith("--") and "." in text.partition("=")[0]) or text == f"--{NO_INPUTS}"
        if not (known.takes_overrides and is_override):
            options = re.findall(r"--[\w-]+", known.parser.format_usage())
            hint = " Overrides read --globals.optimization.lr=3e-4" if known.takes_overrides else ""
            near = did_you_mean(text.partition("=")[0], options)
            raise ConfigError(f"{known.parser.prog}: unknown argument {shown(text)}.{near}{hint}")
        overrides.append(text.removeprefix("--"))
    return known, overrides


def _print_help(arguments: argparse.Namespace, overrides: list[str]) -> int:
    arguments.parser.print_help()
    return 0
