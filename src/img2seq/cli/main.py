"""The command line: one function a verb. The only place that turns errors into exit codes.

Exit codes: 0 done; 1 done, but some images failed; 2 wrong input, in one message; 130 and 143 interrupted, all saved.
`data check` exits with what it found: 0 nothing, 1 warnings, 2 errors.
Modules are imported by the verb that needs them, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from img2seq import __version__
from img2seq.errors import ConfigError, Img2SeqError, did_you_mean
from img2seq.model.cpu.collector import collector_paused


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
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
        if not error.told:
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
        print(f"error: {'' if error.filename is None else f'{error.filename}: '}{error.strerror}", file=sys.stderr)
        return 2


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
                    "--max_time",
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
    train.add_argument(
        "--max_time",
        metavar="TIME",
        help="finish the step, save and exit after this long: seconds, or such as 90m, 2h; --resume goes on",
    )
    train.set_defaults(run=_train, takes_overrides=True)

    caption = verbs.add_parser("caption", help="caption images: files, folders, patterns, a list", allow_abbrev=False)
    caption.add_argument("run_folder", metavar="RUN", help="a finished run")
    caption.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image files, folders, quoted patterns, a CSV of paths, or - for paths on standard input",
    )
    caption.add_argument("--output", metavar="FILE", help="write there (default: standard output)")
    caption.add_argument(
        "--format", choices=("text", "jsonl", "csv", "coco"), help="default: by the ending of --output, else text"
    )
    caption.add_argument("--resume", action="store_true", help="go on with an interrupted output file")
    caption.add_argument("--probabilities", action="store_true", help="write log-probabilities too (jsonl, csv)")
    caption.add_argument(
        "--integer-ids", action="store_true", help="coco: write ids of digits alone as numbers, as COCO's are"
    )
    caption.add_argument("--beginning", default="", metavar="TEXT", help="what every caption begins with")
    _add_decoding_arguments(caption)
    caption.set_defaults(run=_caption)

    evaluate = verbs.add_parser(
        "evaluate", help="score a run's captions, or any system's results file", allow_abbrev=False
    )
    evaluate.add_argument("run_folder", nargs="?", metavar="RUN", help="a finished run")
    evaluate.add_argument(
        "--split", choices=("valid", "train"), default="valid", help="side of the run's split (default: valid)"
    )
    evaluate.add_argument(
        "--captions", metavar="FILE", help="another table of captions, ID,Sequence, in place of the split"
    )
    evaluate.add_argument("--images", metavar="FOLDER", help="its images")
    evaluate.add_argument("--results", metavar="FILE", help="score this COCO results file; no run is needed")
    evaluate.add_argument(
        "--references",
        metavar="FILE",
        help="references for --results: COCO annotations, CSV ID,Sequence, or JSON id -> captions",
    )
    evaluate.add_argument(
        "--document-frequency",
        metavar="FILE",
        help="saved document frequency for CIDEr-D (default: from the references)",
    )
    evaluate.add_argument("--output", metavar="DIR", help="where to write (default: RUN/evaluation)")
    _add_decoding_arguments(evaluate)
    evaluate.set_defaults(run=_evaluate)

    compare = verbs.add_parser("compare", help="compare runs: curves, losses, captions", allow_abbrev=False)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the first is the baseline")
    compare.add_argument(
        "--output", metavar="DIR", help="where the report goes (default: compare_<names> beside the first run)"
    )
    compare.set_defaults(run=_compare)

    runs = verbs.add_parser("runs", help="show the state of runs, or re-check their files", allow_abbrev=False)
    run_actions = runs.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, action, text in (
        ("show", _runs_show, "the state of each run on one screen"),
        ("verify", _runs_verify, "re-check every file that is used again; exit code 2 if one is damaged"),
    ):
        about_runs = run_actions.add_parser(name, help=text, allow_abbrev=False)
        about_runs.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
        about_runs.set_defaults(run=action)

    config = verbs.add_parser("config", help="print the schema, or a resolved configuration", allow_abbrev=False)
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    schema = actions.add_parser("schema", help="JSON Schema of an experiment file", allow_abbrev=False)
    schema.set_defaults(run=_config_schema)
    show = actions.add_parser("show", help="every value with where it came from", allow_abbrev=False)
    _add_config_arguments(show)
    show.set_defaults(run=_config_show, takes_overrides=True)

    data = verbs.add_parser("data", help="look at a data set before a model does", allow_abbrev=False)
    data_actions = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = data_actions.add_parser(
        "check",
        help="decode every image, find what training would refuse or what would spoil its scores",
        allow_abbrev=False,
        description="Exit code 0: clean, 1: warnings, 2: errors.",
    )
    check.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="one experiment (.yaml), or tables of captions (.csv) and image folders",
    )
    check.add_argument("--json", metavar="FILE", help="write all that was found there")
    check.add_argument("--train-ids", metavar="FILE", help="one training ID a line (default: all but --valid-ids)")
    check.add_argument("--valid-ids", metavar="FILE", help="one validation ID a line (default: the experiment's split)")
    check.add_argument(
        "--min-freq", type=int, metavar="N", help="of the vocabulary (default: the experiment's, else 10)"
    )
    check.add_argument("--workers", type=int, default=2, metavar="N", help="images decoded side by side (default: 2)")
    check.set_defaults(run=_data_check)

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


def _add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument("--method", choices=("greedy", "beam", "sample"), help="default: beam")
    for name, kind, text in (
        ("beam_size", int, "beams of an image (default: 5)"), ("n_best", int, "captions for each image"),
        ("length_penalty", float, "a caption's score is its log-probability / length ** this"),
        ("max_length", int, "most tokens"), ("min_length", int, "fewest tokens"),
        ("temperature", float, "of samples"), ("top_k", int, "sample from the k likeliest tokens"),
        ("top_p", float, "sample from the likeliest tokens of this mass"), ("tau", float, "locally typical sampling"),
        ("repetition_penalty", float, "above 1: fewer repetitions"), ("frequency_penalty", float, "above 0: fewer repetitions"),
        ("no_repeat_ngram", int, "no sequence of n tokens twice"), ("beam_groups", int, "groups of diverse beam search"),
        ("diversity", float, "between groups"), ("seed", int, "of samples"),
    ):  # fmt: skip
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    group.add_argument("--batch-size", type=int, default=32, help="images at a time (default: 32)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, mps or auto")


def _decoding(arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    from dataclasses import fields

    from img2seq.generation.settings import Decoding

    given = {f.name: getattr(arguments, f.name, None) for f in fields(Decoding)}
    return Decoding.of({name: value for name, value in given.items() if value is not None})


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


def _seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `90m` or `2h`."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h", "d") else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"--max_time: expected seconds, or a number with s, m, h or d such as 90m; found {text!r}")
    return seconds


def _train(arguments: argparse.Namespace, overrides: list[str]) -> int:
    if arguments.max_time is not None:
        overrides = [*overrides, f"globals.basic_experiment.max_time_s={_seconds(arguments.max_time)}"]
    loaded = _load(arguments, overrides)
    with collector_paused():
        from img2seq.progress import Announcer
        from img2seq.training.interruption import Interrupted
        from img2seq.training.loop import train

    try:
        train(loaded, resume=arguments.resume, overwrite=arguments.overwrite)
    except Interrupted as stop:
        if not stop.told:
            Announcer().say(str(stop))
        return stop.exit_code
    return 0


def _caption(arguments: argparse.Namespace, overrides: list[str]) -> int:
    decoding = _decoding(arguments)
    from pathlib import Path

    with collector_paused():
        from img2seq.inference.caption_files import Options, caption_files, expand
        from img2seq.inference.captioner import Captioner
        from img2seq.progress import Announcer

    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a file's name may be any bytes
    by_ending = {".jsonl": "jsonl", ".csv": "csv", ".json": "coco"}
    form = arguments.format or by_ending.get(Path(arguments.output or "").suffix, "text")
    one_file = (
        len(arguments.paths) == 1 and Path(arguments.paths[0]).is_file() and not arguments.paths[0].endswith(".csv")
    )
    options = Options(form, not (one_file and arguments.output is None), arguments.probabilities, arguments.integer_ids)
    announce = Announcer(bars=sys.stderr.isatty())
    captioner = Captioner.load(arguments.run_folder, device=arguments.device, batch_size=arguments.batch_size)
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


def _evaluate(arguments: argparse.Namespace, overrides: list[str]) -> int:
    decoding = _decoding(arguments)
    if (arguments.run_folder is None) == (arguments.results is None) or (arguments.results is None) != (
        arguments.references is None
    ):
        raise ConfigError("evaluate: expected a RUN, or --results FILE with --references FILE")
    if arguments.results is not None and arguments.output is None:
        raise ConfigError("evaluate: --results needs --output DIR")
    if (arguments.captions is None) != (arguments.images is None):
        raise ConfigError("evaluate: --captions FILE needs --images FOLDER, and the other way round")
    from pathlib import Path

    with collector_paused():
        from img2seq.evaluation.evaluate_run import evaluate_results, evaluate_run, table, write_evaluation

    if arguments.results is not None:
        found = evaluate_results(
            arguments.results, arguments.references, document_frequency=arguments.document_frequency
        )
    else:
        from img2seq.inference.captioner import Captioner
        from img2seq.progress import Announcer

        captioner = Captioner.load(arguments.run_folder, device=arguments.device, batch_size=arguments.batch_size)
        captioner.prepare_for_many()
        found = evaluate_run(
            captioner, decoding, split=arguments.split, captions_file=arguments.captions, images_folder=arguments.images,
            document_frequency=arguments.document_frequency, announce=Announcer(bars=sys.stderr.isatty()),
        )  # fmt: skip
    folder = Path(arguments.output) if arguments.output else Path(arguments.run_folder) / "evaluation"
    write_evaluation(found, folder)
    print(f"{table(found)}\n\nreport: {folder / 'report.html'}")
    return 0


def _compare(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.report.comparison_page import compare

    print(compare(arguments.runs, arguments.output))
    return 0


def _runs_show(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.report.run_state import describe_run

    print("\n\n".join(describe_run(path) for path in arguments.runs))
    return 0


def _runs_verify(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.report.run_state import verify_run

    found = [verify_run(path) for path in arguments.runs]
    print("\n\n".join(text for text, _ in found))
    return 0 if all(whole for _, whole in found) else 2


def _config_schema(arguments: argparse.Namespace, overrides: list[str]) -> int:
    import json

    from img2seq.config.schema import Experiment

    print(json.dumps(Experiment.model_json_schema(by_alias=True), indent=2))
    return 0


def _config_show(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.config.show import describe

    print(describe(_load(arguments, overrides)))
    return 0


def _data_check(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from pathlib import Path

    from img2seq.data.audit.check import check, subject_of
    from img2seq.progress import Announcer
    from img2seq.run.write import write_json

    subject = subject_of(
        arguments.paths, train_ids=arguments.train_ids, valid_ids=arguments.valid_ids, min_freq=arguments.min_freq
    )
    if arguments.json:  # before an hour of reading images
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
    audit = check(subject, Announcer(bars=sys.stderr.isatty()), workers=arguments.workers)
    if arguments.json:
        write_json(Path(arguments.json), audit.to_json())
    print(audit.table())
    return audit.exit_code


def _demo(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from img2seq.demo.main_job import demo

    print(demo(arguments.output, seed=arguments.seed, overwrite=arguments.overwrite))
    return 0
