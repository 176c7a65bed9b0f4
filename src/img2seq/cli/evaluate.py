"""`img2seq evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from img2seq.cli.arguments import (
    Verbs,
    add_decoding_arguments,
    add_read_arguments,
    add_verb,
    decoding_of,
    read_options_of,
    set_run,
)
from img2seq.config.decoding import SETTINGS
from img2seq.errors import ConfigError
from img2seq.model.cpu.collector import collector_paused

if TYPE_CHECKING:
    from img2seq.evaluation.scored import Evaluated
    from img2seq.inference.captioner import Captioner
from img2seq.run.hub import is_on_hub


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "evaluate",
        help="score a run's captions, or any system's results file",
        examples=[
            "img2seq evaluate runs/demo/image --beam-size 3",
            "img2seq evaluate --results results.json --references references.csv --output scores/",
        ],
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a finished run, or an export on the hub: hf:OWNER/NAME; of several the probabilities are averaged, token by token "
        "(same tokenizer; default: none, with --results)",
    )
    parser.add_argument(
        "--split",
        choices=("valid", "train", "test"),
        help="side of the run's split, or of that of --captions or --references (default: valid of a run, all of --references)",
    )
    parser.add_argument(
        "--captions", metavar="FILE", help="other captions of any format, in place of the run's (default: the run's)"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="images of --captions (default: those that it holds or names)"
    )
    parser.add_argument(
        "--results", metavar="FILE", help="score this COCO results file; no run is needed (default: none)"
    )
    parser.add_argument(
        "--references", metavar="FILE", help="references for --results: captions of any format (default: none)"
    )
    parser.add_argument(
        "--document-frequency",
        metavar="FILE",
        help="saved document frequency for CIDEr-D (default: from the references)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first choose beams, length penalty and n-gram block by CIDEr-D on a run's validation split, and store them in the run as its "
        "defaults: minutes (default: search as the run does)",
    )
    parser.add_argument("--output", metavar="DIR", help="where to write (default: RUN/evaluation of one run)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an evaluation with other settings or of other inputs"
    )
    add_read_arguments(parser)
    add_decoding_arguments(parser)
    set_run(parser, run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Score captions and write the evaluation."""
    decoding_of(arguments)  # what is wrong with it is said at once
    if (not arguments.runs) == (arguments.results is None) or (arguments.results is None) != (
        arguments.references is None
    ):
        raise ConfigError("evaluate: expected a RUN, or --results FILE with --references FILE")
    if arguments.results is not None and arguments.output is None:
        raise ConfigError("evaluate: --results needs --output DIR")
    if arguments.images is not None and arguments.captions is None:
        raise ConfigError("evaluate: --images FOLDER needs --captions FILE")
    if arguments.tune:
        _check_tuned_alone(arguments)
    options = read_options_of(arguments)
    from pathlib import Path

    if arguments.output is None and len(arguments.runs) > 1:
        raise ConfigError(f"evaluate: {len(arguments.runs)} runs need a folder of their own; name it with --output DIR")
    if arguments.output is None and is_on_hub(arguments.runs[0]):
        raise ConfigError(f"evaluate: {arguments.runs[0]} is no folder to write into; name one with --output DIR")
    with collector_paused():
        from img2seq.evaluation import scored

    folder = Path(arguments.output) if arguments.output else Path(arguments.runs[0]) / "evaluation"
    if arguments.results is not None:
        made_from = scored.inputs_of_results(
            arguments.results, arguments.references, arguments.document_frequency, arguments.split, options
        )
        scored.check_output(folder, made_from, overwrite=arguments.overwrite)
        found = scored.evaluate_results(
            arguments.results, arguments.references, split=arguments.split,
            document_frequency=arguments.document_frequency, options=options,
        )  # fmt: skip
    else:
        with collector_paused():
            from img2seq.inference.captioner import Captioner
            from img2seq.progress import Announcer

        captioner = Captioner.load(
            arguments.runs,
            device=arguments.device,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            mirror=arguments.mirror,
        )
        evaluate, inputs = _ways(captioner)
        announce = Announcer(bars=sys.stderr.isatty())
        if arguments.tune:
            with collector_paused():
                from img2seq.evaluation.tune import check_tunable, tune
            check_tunable(captioner, overwrite=arguments.overwrite)
        decoding = decoding_of(arguments, captioner.decoding_defaults)
        on = scored.EvaluationData(
            arguments.split, arguments.captions, arguments.images, arguments.document_frequency, options
        )
        made_from = inputs(captioner, decoding, on)
        scored.check_output(folder, made_from, overwrite=arguments.overwrite)
        captioner.prepare_for_many()
        if arguments.tune:
            tuned = tune(captioner, announce=announce)
            print(f"{tuned}\n", flush=True)
            decoding = tuned.decoding
            made_from = inputs(captioner, decoding, on)
        found = evaluate(captioner, decoding, on, announce=announce)
    scored.write_evaluation(found, folder, made_from)
    print(f"{scored.table(found)}\n\nreport: {folder / 'report.html'}")
    return 0


def _check_tuned_alone(arguments: argparse.Namespace) -> None:
    """Raise ConfigError where --tune stands with what would have the run tuned on other data, or with settings that would not be stored."""
    others = ("results", "captions", "document_frequency", "mirror", *SETTINGS)
    given = [f"--{name.replace('_', '-')}" for name in others if getattr(arguments, name)]
    given += [f"--split {arguments.split}"] if arguments.split in ("train", "test") else []
    given += [f"{len(arguments.runs)} runs"] if len(arguments.runs) > 1 else []
    if given:
        raise ConfigError(
            f"evaluate: --tune chooses how one run searches, on its validation split; expected nothing beside it, found {given[0]}"
        )


def _ways(captioner: Captioner) -> tuple[Callable[..., Evaluated], Callable[..., dict[str, Any]]]:
    """Return what evaluates a run, an export or several, and what tells what it is made from."""
    if captioner.loaded.members:
        with collector_paused():
            from img2seq.evaluation.evaluate_ensemble import evaluate_ensemble, inputs_of_ensemble
        return evaluate_ensemble, inputs_of_ensemble
    if captioner.loaded.trained is None:
        from img2seq.evaluation.evaluate_export import evaluate_export, inputs_of_export

        return evaluate_export, inputs_of_export
    with collector_paused():
        from img2seq.evaluation.evaluate_run import evaluate_run, inputs_of_run
    return evaluate_run, inputs_of_run
