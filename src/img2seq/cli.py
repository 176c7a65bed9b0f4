"""The command line: one function a verb. The only place that turns errors into exit codes.

Exit codes: 0 done; 1 done, but some images failed; 2 wrong input, in one message; 130 and 143 interrupted, all saved.
Modules are imported by the verb that needs them, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from img2seq import __version__
from img2seq.errors import ConfigError, Img2SeqError, did_you_mean


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run a verb and return its exit code."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    overrides = _overrides(rest, takes_overrides=getattr(known, "takes_overrides", False), verb=known.verb or "")
    if known.verb is None:
        parser.print_help()
        return 0
    try:
        if isinstance(overrides, Img2SeqError):
            raise overrides
        code: int = known.run(known, overrides)
        return code
    except Img2SeqError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def _overrides(rest: list[str], *, takes_overrides: bool, verb: str) -> list[str] | Img2SeqError:
    """Return `SECTION.KEY=VALUE` for each `--SECTION.KEY=VALUE`, or what is wrong with the rest of the line."""
    overrides = []
    for text in rest:
        if takes_overrides and text.startswith("--") and "." in text.partition("=")[0]:
            overrides.append(text.removeprefix("--"))
        elif takes_overrides:
            near = did_you_mean(
                text.partition("=")[0],
                [
                    "--global_configs",
                    "--input_configs",
                    "--fusion_configs",
                    "--output_configs",
                    "--resume",
                    "--overwrite",
                ],
            )
            return ConfigError(
                f"command line: unknown argument {text!r}.{near} Overrides read --globals.optimization.lr=3e-4"
            )
        else:
            return ConfigError(f"command line: `img2seq {verb}` does not take {text!r}; see img2seq {verb} --help")
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="img2seq",
        description="Train, measure and ship models that turn an image into a sequence of words.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"img2seq {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=argparse.ArgumentParser)

    train = verbs.add_parser(
        "train",
        help="train a model as configured",
        allow_abbrev=False,
        description="Train as configured. Any field is overridden with --SECTION.KEY=VALUE, such as --globals.optimization.lr=3e-4.",
    )
    _add_config_arguments(train)
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument("--overwrite", action="store_true", help="remove an existing run and start again")
    train.set_defaults(run=_train, takes_overrides=True)

    compare = verbs.add_parser("compare", help="compare runs: curves, losses, captions", allow_abbrev=False)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the first is the baseline")
    compare.add_argument(
        "--output", metavar="DIR", help="where the report goes (default: compare_<names> beside the first run)"
    )
    compare.set_defaults(run=_compare)

    config = verbs.add_parser("config", help="print the schema, or a resolved configuration", allow_abbrev=False)
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    schema = actions.add_parser("schema", help="JSON Schema of an experiment file", allow_abbrev=False)
    schema.set_defaults(run=_config_schema)
    show = actions.add_parser("show", help="every value with where it came from", allow_abbrev=False)
    _add_config_arguments(show)
    show.set_defaults(run=_config_show, takes_overrides=True)

    demo = verbs.add_parser("demo", help="the main job on generated pictures, in a few minutes", allow_abbrev=False)
    demo.add_argument(
        "--output", metavar="DIR", default="runs/demo", help="where data, runs and report go (default: runs/demo)"
    )
    demo.add_argument("--seed", type=int, default=0, help="of the scenes and of training")
    demo.add_argument("--overwrite", action="store_true", help="replace what an earlier demo left there")
    demo.set_defaults(run=_demo)
    return parser


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT.yaml",
        help="one file with the keys globals, inputs, fusion, outputs",
    )
    for section, plural in (("global", "globals"), ("input", "inputs"), ("fusion", "fusion"), ("output", "outputs")):
        parser.add_argument(
            f"--{section}_configs",
            nargs="+",
            action="extend",
            default=[],
            metavar="FILE",
            help=f"YAML file(s) of the section {plural}",
        )


def _load(arguments: argparse.Namespace, overrides: list[str]):  # type: ignore[no-untyped-def]
    from img2seq.config.load import ConfigFiles, load

    files = ConfigFiles(
        arguments.experiment,
        arguments.global_configs,
        arguments.input_configs,
        arguments.fusion_configs,
        arguments.output_configs,
    )
    return load(files, overrides)


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    loaded = _load(arguments, overrides)
    from img2seq.training.loop import Interrupted, train

    try:
        train(loaded, resume=arguments.resume, overwrite=arguments.overwrite)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


def _compare(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.report.compare import compare

    print(compare(arguments.runs, arguments.output))
    return 0


def _config_schema(arguments: argparse.Namespace, overrides: list[str]) -> int:
    import json

    from img2seq.config.schema import Experiment

    print(json.dumps(Experiment.model_json_schema(by_alias=True), indent=2))
    return 0


def _config_show(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.config.load import describe

    print(describe(_load(arguments, overrides)))
    return 0


def _demo(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.demo.main_job import demo

    print(demo(arguments.output, seed=arguments.seed, overwrite=arguments.overwrite))
    return 0
