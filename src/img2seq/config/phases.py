"""Training in phases: each overrides how weights are changed, what is frozen, how images change, and what is minimised."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from img2seq.config.section import MOST, Section

# One line a field reads like the table it is.
# fmt: off


class SelfCritical(Section):
    n_samples: int = Field(5, ge=1, le=4096, description="Ours. Captions sampled of each image.")
    baseline: Literal["mean", "greedy"] = Field("mean", description="Ours. What a sample's reward is compared with. mean: that of the image's other samples (Luo 2020). greedy: that of its greedy caption (Rennie 2017), which takes another search.")
    bleu_weight: float = Field(0.0, ge=0, le=1000, description="Ours. The reward is CIDEr-D + bleu_weight * BLEU-4, with the end token among the words and document frequency of the training captions.")
    cross_entropy_weight: float = Field(0.0, ge=0, le=1000, description="Ours. The cross-entropy of people's captions of the same images, in nats per token, is added times this: it keeps words that the reward does not pay for.")
    dropout: bool = Field(False, description="Ours. Compute gradients with dropout (and with batch statistics, where an encoder is trained) as in other phases. Samples are drawn without.")

    @model_validator(mode="after")
    def _others_can_be_averaged(self) -> Self:
        if self.baseline == "mean" and self.n_samples < 2:
            raise ValueError(f"n_samples: expected 2 or more for the mean of the other samples, found {self.n_samples}")
        return self


class Phase(Section):
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-]+$", description="Ours. Name in histories and figures.")
    n_epochs: int = Field(ge=1, le=MOST, description="Ours. Passes over the training images, in place of `basic_experiment.n_epochs`; early stopping ends the phase.")
    objective: Literal["cross_entropy", "self_critical"] = Field("cross_entropy", description="Ours. cross_entropy: people's captions, word by word. self_critical: captions that the model samples, by their score (see `self_critical`); `batch_size` counts samples.")
    lr: float | None = Field(None, gt=0, le=1000, description="Ours. In place of `optimization.lr`; null is that.")
    lr_lb: float | None = Field(None, ge=0, le=1000, description="Ours. In place of `optimization.lr_lb`; null is that.")
    lr_schedule: Literal["cycle", "plateau", "same", "cosine"] | None = Field(None, description="Ours. In place of `lr_schedule.lr_schedule`, over this phase; null is that.")
    warmup_steps: Literal["auto"] | int | None = Field(None, description="Ours. In place of `lr_schedule.warmup_steps`; null is that.")
    batch_size: int | None = Field(None, ge=1, le=1_000_000, description="Ours. In place of `basic_experiment.batch_size`; null is that.")
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="Ours. In place of `optimization.label_smoothing`; null is that.")
    early_stopping_patience: int | None = Field(None, ge=0, le=MOST, description="Ours. In place of `training_control.early_stopping_patience`; null is that. What stops is the phase.")
    encoder_stages: int | None = Field(None, ge=0, le=1000, description="Ours. Last stages of each encoder to train, as timm groups its layers; 0 freezes all. Batch statistics stay as they are. null: as `model_config` says.")
    auto_augment: bool | None = Field(None, description="Ours. In place of `input_type_info.auto_augment` of every input whose pixels are encoded in this phase; null is that.")
    horizontal_flip: bool | None = Field(None, description="Ours. In place of `input_type_info.horizontal_flip` of every input whose pixels are encoded in this phase; null is that.")
