"""Every field a configuration may have: its meaning, unit, range and default.

The four sections are `globals`, `inputs`, `fusion` and `outputs`. Names, defaults and meanings follow the
schema of the framework the tutorial was written for, wherever it has the field; fields that are ours say so.
A field of theirs that we do not support is still known here: it accepts only the value that changes nothing,
and says why (`neutral`), or is refused by name (`REFUSED`). Nothing is ever ignored.

`docs/configuration.md` is generated from this file.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from img2seq.config.causal_lm import CausalLM
from img2seq.config.globals import Globals
from img2seq.config.inputs import ImageInput
from img2seq.config.model_sections import check_names
from img2seq.config.outputs import Fusion, SequenceOutput
from img2seq.config.section import Section


class Experiment(Section):
    """A whole configuration.

    Not a subclass of `ModelSections`: pydantic would list its fields first, here and in every file that is written.
    """

    globals: Globals
    inputs: list[ImageInput] = Field([], description="Image inputs; none is the text-only baseline.")
    fusion: Fusion = Fusion()
    outputs: list[SequenceOutput] = Field(description="What to generate.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        check_names(self.inputs, self.outputs)
        return self

    @model_validator(mode="after")
    def _what_a_language_model_can_do(self) -> Self:
        if isinstance(self.output.model, CausalLM):
            if self.globals.model.pretrained_run is not None:
                raise ValueError(
                    "globals.model.pretrained_run: cannot be combined with model_type: causal_lm, whose decoder is pretrained itself"
                )
            if self.globals.accelerator.strategy == "fsdp":
                raise ValueError(
                    "globals.accelerator.strategy: expected auto or ddp with model_type: causal_lm, found fsdp"
                )
        return self

    @property
    def output(self) -> SequenceOutput:
        return self.outputs[0]


# Keys of the peer's schema that are not in ours at all: refused by name, with the reason.
REFUSED: dict[str, str] = {
    "interpretation_config": "attributions are not computed for sequence outputs",
    "pretrained_config": "use model_config.pretrained_weights (encoder) or globals.model.pretrained_checkpoint (whole model)",
    "tensor_broker_config": "layers cannot be wired by name; every decoder layer attends to every input",
    "model_config": "the pass-through fusion has no settings",
    "adversarial_training": "adversarial training is not supported",
    "latent_sampling": "hidden activations are not sampled",
    "presence_penalty": "use frequency_penalty or repetition_penalty",
    "projection_layer_type": "the last layer is the transposed embedding matrix (tied weights)",
    "input_inner_key": "images are files in a folder, not entries in an archive",
    "output_inner_key": "captions come from a CSV file",
    "uncertainty_weighted_mt_loss": "there is one output, so there are no losses to weigh",
}
