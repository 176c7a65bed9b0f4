"""`img2seq train`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_config_arguments, add_verb, config_of, set_run
from img2seq.extras import TRAIN
from img2seq.model.cpu.collector import collector_paused
from img2seq.model.cpu.cores import bind_threads


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "train",
        help="train a model as configured",
        description="Train as configured.\nAny field is overridden with --SECTION.KEY=VALUE, such as --globals.optimization.lr=3e-4.\n--inputs=[] leaves the images out: the text-only baseline.",
        examples=[
            "img2seq train experiment.yaml --globals.optimization.lr=3e-4",
            "img2seq train experiment.yaml --resume --max_time 2h",
        ],
    )
    add_config_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="remove an existing run and start again")
    parser.add_argument(
        "--max_time",
        type=_seconds,
        metavar="TIME",
        help="finish the step, save and exit after this long: seconds, or such as 90m, 2h; --resume continues (default: no limit)",
    )
    parser.add_argument("--embed", action="store_true", help="keep a pretrained language model in the run, whole")
    set_run(parser, run, takes_overrides=True, needs=TRAIN)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train."""
    if arguments.max_time is not None:
        overrides = [*overrides, f"globals.basic_experiment.max_time_s={arguments.max_time}"]
    loaded = config_of(arguments, overrides)
    if arguments.embed:
        from img2seq.export.embed import OVERRIDE, check_embed

        check_embed(loaded.experiment.output.model)
        loaded = config_of(arguments, [*overrides, OVERRIDE])
    with collector_paused():
        bind_threads()
        from img2seq.progress import Announcer
        from img2seq.training.interruption import Interrupted
        from img2seq.training.loop import train

    try:
        train(loaded, resume=arguments.resume, overwrite=arguments.overwrite)
    except Interrupted as stop:
        if not stop.already_reported:
            Announcer().say(str(stop))
        return stop.exit_code
    return 0


def _seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `90m` or `2h`."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h", "d") else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected seconds, or a number with s, m, h or d such as 90m; found {text[:80]!r}"
        )
    return seconds
