"""What verbs share: the parser and its errors, configuration files, decoding flags, the device."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from img2seq.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from img2seq.config.load import LoadedConfig
    from img2seq.generation.settings import Decoding

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"
Run = Callable[[argparse.Namespace, list[str]], int]
DEVICES = ("cpu", "cuda", "cuda:N", "mps", "auto")


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError with one sentence, where argparse prints its usage and exits."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        # argparse takes "-inf" and "-1e-3" for flags, and would say that the value is missing.
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf$|nan$)")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line as ConfigError."""
        raise ConfigError(f"{self.prog}: {message.removeprefix('argument ')}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = list(action.choices)
        if action.nargs == argparse.PARSER:
            near = did_you_mean(value, names) or f" Expected {names_in_words(names)}"
            raise argparse.ArgumentError(None, f"unknown verb {value!r}.{near}")
        message = f"expected {names_in_words(names)}; found {value!r}.{did_you_mean(value, names)}"
        raise argparse.ArgumentError(action, message)


def add_verb(verbs: Verbs, name: str, *, help: str, examples: Sequence[str], description: str = "") -> Parser:
    """Return the parser of a new verb, or of an action of a verb. Its help ends with the examples."""
    lines = "\n".join(f"  {example}" for example in examples)
    return verbs.add_parser(
        name, help=help, description=description or f"{help[0].upper()}{help[1:]}.", epilog=f"examples:\n{lines}"
    )


def set_run(parser: Parser, run: Run, *, takes_overrides: bool = False) -> None:
    """Set the function that does a verb's work."""
    parser.set_defaults(run=run, parser=parser, takes_overrides=takes_overrides)


def names_in_words(names: Sequence[str]) -> str:
    """Return "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from the command line and checks its range."""

    def read(text: str) -> int:
        if re.fullmatch(r"[-+]?\d{1,20}", text) and lowest <= int(text) <= highest:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number, {lowest} to {highest}; found {text[:80]!r}")

    return read


def device(text: str) -> str:
    """Return the name of a device, checked."""
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        return text
    near = " Did you mean 'cuda'?" if text.lower().startswith("gpu") else did_you_mean(text, DEVICES)
    raise argparse.ArgumentTypeError(f"expected {names_in_words(DEVICES)}; found {text[:80]!r}.{near}")


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


def load_config(arguments: argparse.Namespace, overrides: list[str]) -> LoadedConfig:
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


# --- decoding ----------------------------------------------------------------------------------------------


def add_decoding_arguments(parser: Parser) -> None:
    """Add a flag for each decoding setting, and where and how many images at a time to compute."""
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
    group.add_argument(
        "--batch-size",
        type=whole_number(1, 65536),
        default=32,
        metavar="N",
        help="images at a time (1 to 65536, default: 32)",
    )
    group.add_argument(
        "--device", type=device, default="auto", help=f"where to compute: {names_in_words(DEVICES)} (default: auto)"
    )


def decoding_of(arguments: argparse.Namespace) -> Decoding:
    """Return the decoding settings that the flags give."""
    from dataclasses import fields

    from img2seq.generation.settings import Decoding

    given = {field.name: getattr(arguments, field.name, None) for field in fields(Decoding)}
    return Decoding.of({name: value for name, value in given.items() if value is not None})
