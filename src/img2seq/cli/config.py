"""`img2seq config schema` and `img2seq config show`."""

from __future__ import annotations

import argparse

from img2seq.cli.arguments import Verbs, add_config_arguments, add_verb, config_of, set_run


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "config",
        help="print the schema, or a resolved configuration",
        examples=["img2seq config schema > schema.json", "img2seq config show experiment.yaml"],
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    schema = add_verb(
        actions,
        "schema",
        help="JSON Schema of an experiment file",
        examples=["img2seq config schema", "img2seq config schema > schema.json"],
    )
    set_run(schema, run_schema)
    show = add_verb(
        actions,
        "show",
        help="every value with where it came from",
        examples=[
            "img2seq config show experiment.yaml",
            "img2seq config show experiment.yaml --globals.optimization.lr=3e-4",
        ],
    )
    add_config_arguments(show)
    set_run(show, run_show, takes_overrides=True)


def run_schema(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print the JSON Schema of an experiment file."""
    import json

    from img2seq.config.schema import Experiment

    print(json.dumps(Experiment.model_json_schema(by_alias=True), indent=2))
    return 0


def run_show(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Print every value of a configuration with where it came from."""
    from img2seq.config.show import describe

    print(describe(config_of(arguments, overrides)))
    return 0
