"""What verbs share: the parser and its errors, configuration files, decoding flags, the device."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from img2seq.config.decoding import SETTINGS, Decoding
from img2seq.config.devices import DEVICE_PATTERN, DEVICES, nearest_device
from img2seq.config.outputs import ReadOptions
from img2seq.config.ranges import choices, names_in_words, range_in_words
from img2seq.errors import ConfigError, did_you_mean, shown

if TYPE_CHECKING:
    from img2seq.config.load import LoadedConfig

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"
ANY_RUN = {"max_length": 100_000}  # until a run says how long its captions are, any length may be right
Run = Callable[[argparse.Namespace, list[str]], int]


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError with one sentence, where argparse prints its usage and exits."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        # argparse takes "-inf" and "-1e-3" for flags, and would say that the value is missing.
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|\.?inf$|\.?nan$)")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line as ConfigError."""
        raise ConfigError(f"{self.prog}: {message.removeprefix('argument ')}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = list(action.choices)
        if action.nargs == argparse.PARSER:
            near = did_you_mean(value, names) or f" Expected {names_in_words(names)}"
            raise argparse.ArgumentError(None, f"unknown verb {shown(value)}.{near}")
        message = f"expected {names_in_words(names)}; found {shown(value)}.{did_you_mean(value, names)}"
        raise argparse.ArgumentError(action, message)


def add_verb(verbs: Verbs, name: str, *, help: str, examples: Sequence[str], description: str = "") -> Parser:
    """Return the parser of a new verb, or of an action of a verb. Its help ends with the examples."""
    lines = "\n".join(f"  {example}" for example in examples)
    return verbs.add_parser(
        name, help=help, description=description or f"{help[0].upper()}{help[1:]}.", epilog=f"examples:\n{lines}"
    )


def set_run(parser: Parser, run: Run, *, takes_overrides: bool = False, needs: Sequence[str] = ()) -> None:
    """Set the function that does a verb's work, and the packages it needs besides those of the core install."""
    parser.set_defaults(run=run, parser=parser, takes_overrides=takes_overrides, needs=needs)


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from the command line and checks its range."""

    def read(text: str) -> int:
        if re.fullmatch(r"[-+]?\d{1,20}", text) and lowest <= int(text) <= highest:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number, {lowest} to {highest}; found {shown(text)}")

    return read


def device(text: str) -> str:
    """Return the name of a device, checked."""
    if re.fullmatch(DEVICE_PATTERN, text):
        return text
    raise argparse.ArgumentTypeError(f"expected {names_in_words(DEVICES)}; found {shown(text)}.{nearest_device(text)}")


# --- configuration files -----------------------------------------------------------------------------------


def add_config_arguments(parser: Parser) -> None:
    """Add the files of a configuration: one experiment file, or files for each section."""
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT.yaml",
        help="one file with the keys globals, inputs, fusion, outputs (default: none)",
    )
    for section, plural in (("global", "globals"), ("input", "inputs"), ("fusion", "fusion"), ("output", "outputs")):
        parser.add_argument(
            f"--{section}_configs",
            nargs="+",
            action="extend",
            default=[],
            metavar="FILE",
            help=f"YAML file(s) of the section {plural} (default: none)",
        )


def config_of(arguments: argparse.Namespace, overrides: list[str]) -> LoadedConfig:
    """Load the configuration that the arguments name."""
    from img2seq.config.load import ConfigFiles, load

    files = ConfigFiles(
        arguments.experiment,
        arguments.global_configs,
        arguments.input_configs,
        arguments.fusion_configs,
        arguments.output_configs,
    )
    return load(files, overrides)


# --- captions on disk --------------------------------------------------------------------------------------


def add_read_arguments(parser: Parser) -> None:
    """Add a flag for each thing that a person may say of captions on disk."""
    group = parser.add_argument_group("captions on disk, where what is found in them is not what is meant")
    for name, field in ReadOptions.model_fields.items():
        meaning = (field.description or "").removeprefix("Ours. ").partition("; ")[0].rstrip(".").replace("%", "%%")
        options: dict[str, Any] = {"metavar": "NAME"}
        if name == "format":
            options = {"choices": choices(field)}
        elif name == "delimiter":
            options = {"metavar": "CHAR", "type": _delimiter}
        elif name == "caption_columns":
            options |= {"nargs": "+", "default": []}
        group.add_argument(
            "--captions-format" if name == "format" else _flag(name),  # --format is that of what `caption` writes
            dest=f"read_{name}", help=f"{meaning[0].lower()}{meaning[1:]} (default: found)", **options,
        )  # fmt: skip


def _delimiter(text: str) -> str:
    if text == "tab" or len(text) == 1:
        return text
    raise argparse.ArgumentTypeError(f"expected one character, or tab; found {shown(text)}")


def read_options_of(arguments: argparse.Namespace) -> ReadOptions:
    """Return what the flags say of captions on disk."""
    return ReadOptions(**{name: getattr(arguments, f"read_{name}") for name in ReadOptions.model_fields})


# --- decoding ----------------------------------------------------------------------------------------------


def add_decoding_arguments(parser: Parser) -> None:
    """Add a flag for each decoding setting, and where and how many images at a time to compute."""
    group = parser.add_argument_group("decoding")
    for name, field in SETTINGS.items():
        meaning = (field.description or "").rstrip(".").replace("%", "%%")
        group.add_argument(
            _flag(name),
            metavar="N" if field.annotation is int else "NAME" if choices(field) else "X",
            help=f"{meaning} ({range_in_words(field)}; default: {field.default})",
        )
    group.add_argument(
        "--batch-size",
        type=whole_number(1, 4096),
        default=32,
        metavar="N",
        help="images at a time (1 to 4096; default: 32)",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of an export for ONNX Runtime, where it was written with others than fp32 (default: fp32)",
    )
    group.add_argument(
        "--mirror",
        action="store_true",
        help="average over each picture and its mirror image: twice the time (default: the picture alone)",
    )
    group.add_argument(
        "--device", type=device, default="auto", help=f"where to compute: {names_in_words(DEVICES)} (default: auto)"
    )


def decoding_of(arguments: argparse.Namespace, defaults: Mapping[str, Any] = ANY_RUN) -> Decoding:
    """Return the decoding settings that the flags give, with a run's defaults. Raises ConfigError naming the flags that are wrong."""
    given = {name: _scalar(text) for name in SETTINGS if (text := getattr(arguments, name)) is not None}
    if defaults is ANY_RUN:  # nor does it say yet how many beams are its default: as many as the flags need
        of_beams = [n for name in ("n_best", "beam_groups") if isinstance(n := given.get(name), int) and n > 0]
        defaults = {**defaults, "beam_size": min(1000, math.prod(of_beams))}
    try:
        return Decoding.of({**defaults, **given})
    except ConfigError as error:
        problems = [line.partition(":") for line in str(error).splitlines()]
        raise ConfigError("\n".join(f"{_flag(name)}:{problem}" for name, _, problem in problems)) from None


def _scalar(text: str) -> Any:
    from img2seq.config.yaml_reader import scalar  # PyYAML: nobody waits for it without a flag

    return scalar(text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
