"""`img2seq export`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Literal

from img2seq.cli.arguments import Verbs, add_verb, set_run, whole_number
from img2seq.errors import ConfigError
from img2seq.extras import MODEL

if TYPE_CHECKING:
    from img2seq.run.onnx_folder import Precision

VARIANTS: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "export",
        help="write a lean run, to caption and to serve with",
        description="Write what captioning and serving need of a run, without optimiser state, histories and samples. It is loaded and\n"
        "compared with the run before it takes its name.",
        examples=["img2seq export runs/demo/image exported", "img2seq export runs/demo/image exported --overwrite"],
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run with a checkpoint")
    parser.add_argument("target", metavar="DIR", help="folder to write, which is empty or not there")
    parser.add_argument(
        "--step",
        type=whole_number(0, 10**12),
        metavar="N",
        help="the checkpoint of this step (default: that of the lowest validation loss)",
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
            overwrite=arguments.overwrite,
            announce=announce,
        )
    )
    return 0
