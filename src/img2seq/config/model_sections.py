"""The two sections that a model is built from: all that captioning reads of a run's configuration."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from img2seq.config.inputs import ImageInput
from img2seq.config.outputs import SequenceOutput
from img2seq.config.section import Section

# fmt: off


class ModelSections(Section):
    """Inputs and outputs of an experiment."""

    inputs: list[ImageInput] = Field([], description="Image inputs; none is the text-only baseline.")
    outputs: list[SequenceOutput] = Field(description="What to generate.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        check_names(self.inputs, self.outputs)
        return self

    @property
    def output(self) -> SequenceOutput:
        return self.outputs[0]


def check_names(inputs: list[ImageInput], outputs: list[SequenceOutput]) -> None:
    """Raise ValueError unless there is one output, inputs have distinct names, and manual inputs use these names."""
    if len(outputs) != 1:
        raise ValueError(f"outputs: expected one sequence output, found {len(outputs)}; train one run for each")
    names = [entry.name for entry in inputs]
    if len(set(names)) < len(names):
        raise ValueError(f"inputs: input_name must differ between inputs, found {names}")
    (output,) = outputs
    for entry in output.sampling_config.manual_inputs:
        if not set(names) <= set(entry) <= {*names, output.name}:
            raise ValueError(f"outputs: manual_inputs: expected the keys {sorted({*names, output.name})} ({output.name} may be left out), found {sorted(entry)}")


# fmt: on
