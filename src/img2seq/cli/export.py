"""`img2seq export`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from img2seq.cli.arguments import Verbs, add_verb, set_run, whole_number
from img2seq.errors import ConfigError, shown
from img2seq.extras import MODEL

if TYPE_CHECKING:
    from img2seq.export.model_card import Said
    from img2seq.run.onnx_folder import Precision

VARIANTS: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")
ON_CARD = (  # what only a person can say: flag, what stands for it, what it must be, what it means, what is expected
    ("--license", "ID", r"[a-z0-9][a-z0-9.+-]{1,60}", "licence, as the hub calls it (default: to be filled)", "a licence such as cc-by-4.0, apache-2.0, mit or other"),
    ("--language", "CODE", r"[a-z]{2,3}", "language of the captions; may be given again (default: not said)", "a code of two or three letters, such as en"),
    ("--dataset", "NAME", r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,100}", "what it was trained on; may be given again (default: not said)", "a name on one line"),
    ("--repository", "OWNER/NAME", r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", "where it will be on the hub, for the card's commands (default: not said)", "OWNER/NAME"),
)  # fmt: skip


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "export",
        help="write a lean run, to caption and to serve with",
        description="Write what captioning and serving need of a run, without optimiser state, histories and samples. It is loaded and\n"
        "compared with the run before it takes its name.",
        examples=[
            "img2seq export runs/demo/image exported",
            "img2seq export runs/demo/image exported --overwrite --hub --license cc-by-4.0 --language en",
        ],
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run with a checkpoint")
    parser.add_argument("target", metavar="DIR", help="folder to write, which is empty or not there")
    parser.add_argument(
        "--step", type=whole_number(0, 10**12), metavar="N", help="the checkpoint of this step (default: the best one)"
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="for ONNX Runtime, without torch, and for Node and the browser; compared on validation pictures",
    )
    parser.add_argument("--fp16", action="store_true", help="with --onnx: also with weights of 16 bits, half as large")
    parser.add_argument(
        "--int8", action="store_true", help="with --onnx: also with weights of 8 bits, a quarter as large"
    )
    parser.add_argument(
        "--embed", action="store_true", help="take along a pretrained language model that the run reads from elsewhere"
    )
    hub = parser.add_argument_group("for the Hugging Face hub")
    hub.add_argument(
        "--hub", action="store_true", help="add a model card with the scores of RUN/evaluation, and figures"
    )
    for flag, metavar, pattern, meaning, expected in ON_CARD:
        action = "append" if "given again" in meaning else "store"
        hub.add_argument(flag, action=action, metavar=metavar, type=_matching(pattern, expected), help=meaning)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export, and nothing else")
    set_run(parser, run, needs=MODEL)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Export a run and print what was written."""
    from img2seq.export.export_run import export_run
    from img2seq.progress import Announcer

    precisions: list[Precision] = [name for name in VARIANTS if getattr(arguments, name)]
    if precisions and not arguments.onnx:
        raise ConfigError(f"--{precisions[0]}: is a variant of --onnx; give it, too")
    announce = Announcer(bars=sys.stderr.isatty())
    print(
        export_run(
            arguments.run_folder,
            arguments.target,
            step=arguments.step,
            onnx=("fp32", *precisions) if arguments.onnx else (),
            embed=arguments.embed,
            card=_said(arguments),
            overwrite=arguments.overwrite,
            announce=announce,
        )
    )
    return 0


def _matching(pattern: str, expected: str) -> Callable[[str], str]:
    """Return a function that checks a text of the command line."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII) and text.strip():
            return text
        raise argparse.ArgumentTypeError(f"expected {expected}; found {shown(text)}")

    return check


def _said(arguments: argparse.Namespace) -> Said | None:
    """Return what the flags say of a model that goes to the hub, None where it does not. Raises ConfigError for flags without --hub."""
    given = [flag for flag, *_ in ON_CARD if getattr(arguments, flag.removeprefix("--"))]
    if not arguments.hub:
        if given:
            raise ConfigError(f"{given[0]}: is for the model card; give --hub, too")
        return None
    from img2seq.export.model_card import Said

    return Said(arguments.repository, arguments.license, arguments.language or (), arguments.dataset or ())
