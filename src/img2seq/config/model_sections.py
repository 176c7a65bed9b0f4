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
        if len(self.outputs) != 1:
            raise ValueError(f"outputs: expected one sequence output, found {len(self.outputs)}; train one run for each")
        names = [entry.name for entry in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError(f"inputs: input_name must differ between inputs, found {names}")
        manual_keys = {*names, self.output.name}
        for entry in self.output.sampling_config.manual_inputs:
            if not set(names) <= set(entry) <= manual_keys:
                raise ValueError(f"outputs: manual_inputs: expected the keys {sorted(manual_keys)} ({self.output.name} may be left out), found {sorted(entry)}")
        return self

    @property
    def output(self) -> SequenceOutput:
        return self.outputs[0]


# fmt: on
