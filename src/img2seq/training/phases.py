"""The phases of a run: what holds in each, which images it sees, and which part of the encoders it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from img2seq.config.globals import Globals
from img2seq.config.inputs import ImageInput
from img2seq.config.phases import Phase
from img2seq.config.schema import Experiment
from img2seq.errors import ConfigError, RunError
from img2seq.model.caption_model import CaptionModel
from img2seq.model.encoder import ImageEncoder, timm_library
from img2seq.run.checkpoint import Checkpoint
from img2seq.training.state import position_of


@dataclass(frozen=True)
class TrainingPhase:
    """What holds in a phase.

    Attributes:
        name: of the phase; "" where the run has none.
        settings: the run's, with what the phase overrides.
        objective: what is minimised.
        encoder_stages: last stages of the encoders that are trained; None is what the inputs say.
        inputs: the run's, with what the phase overrides. Where stages are trained, features are not cached.
    """

    name: str
    settings: Globals
    objective: Literal["cross_entropy", "self_critical"]
    encoder_stages: int | None
    inputs: list[ImageInput]

    @property
    def measures(self) -> str:
        """Return what its steps are judged by."""
        return "loss" if self.objective == "cross_entropy" else "reward"


def phases_of(config: Experiment) -> list[TrainingPhase]:
    """Return the phases of a run, one where the configuration names none."""
    if not config.globals.phases:
        return [TrainingPhase("", config.globals, "cross_entropy", None, config.inputs)]
    return [
        TrainingPhase(
            phase.name,
            config.globals.of_phase(phase),
            phase.objective,
            phase.encoder_stages,
            [_input_in(phase, entry) for entry in config.inputs],
        )
        for phase in config.globals.phases
    ]


def phase_of(previous: Checkpoint | None, phases: Sequence[TrainingPhase]) -> TrainingPhase:
    """Return the phase that a checkpoint is of, the first without one. Raises RunError where there is no such phase."""
    number = 0 if previous is None else position_of(previous).phase
    if previous is not None and number >= len(phases):
        raise RunError(f"{previous.path}: not the state of this run: phase {number + 1} of {len(phases)}")
    return phases[number]


def _input_in(phase: Phase, entry: ImageInput) -> ImageInput:
    """Return an input as a phase has it: cached features are those of images that are not augmented."""
    cached = entry.model.cache_features and not phase.encoder_stages
    if cached:
        return entry
    model = entry.model.model_copy(update={"cache_features": False})
    changed = {
        name: value for name in ("auto_augment", "horizontal_flip") if (value := getattr(phase, name)) is not None
    }
    return entry.model_copy(
        update={"model": model, "input_type_info": entry.input_type_info.model_copy(update=changed)}
    )


def without_cached_features(inputs: Sequence[ImageInput]) -> list[ImageInput]:
    """Return inputs whose images are encoded anew each time, by whatever weights the encoder has."""
    return [e.model_copy(update={"model": e.model.model_copy(update={"cache_features": False})}) for e in inputs]


def apply_to_encoders(model: CaptionModel, phase: TrainingPhase) -> None:
    """Freeze and train what a phase does of each encoder, from now on.

    Raises:
        ConfigError: if timm does not say which layers of an encoder belong together, or there are fewer stages.
    """
    for entry in phase.inputs:
        encoder, n_stages = model.encoder(entry.name), phase.encoder_stages
        encoder.keeps_statistics = n_stages is not None
        encoder.frozen = entry.model.freeze_pretrained_model if n_stages is None else n_stages == 0
        encoder.requires_grad_(not encoder.frozen)
        if n_stages:
            last = _last_stages(encoder, n_stages, entry.name)
            for name, parameter in encoder.backbone.named_parameters():
                parameter.requires_grad_(name in last)


def _last_stages(encoder: ImageEncoder, n_stages: int, input_name: str) -> set[str]:
    """Return the names of the parameters of the last stages."""
    matcher = getattr(encoder.backbone, "group_matcher", None)
    if matcher is None:
        raise ConfigError(
            f"phases: encoder_stages: timm does not tell the stages of {type(encoder.backbone).__name__} (inputs.{input_name}); expected 0 or null"
        )
    stage_of = timm_library().models.group_parameters(encoder.backbone, matcher(coarse=True), reverse=True)
    stages = sorted(set(stage_of.values()))
    if n_stages > len(stages):
        raise ConfigError(
            f"phases: encoder_stages: expected 0 to {len(stages)} for inputs.{input_name}, found {n_stages}"
        )
    return {name for name, stage in stage_of.items() if stage in stages[-n_stages:]}
