"""A run, or a lean export of one, that captions: in torch."""

from __future__ import annotations

from typing import Any

from img2seq.build.trained import TrainedRun, load_run
from img2seq.inference.loaded import Loaded
from img2seq.inference.torch_model import TorchModel
from img2seq.run.stored_decoding import stored_decoding


def captioning_run(path: str, *, device: str, step: int | None) -> Loaded:
    """Load a run's best checkpoint, or that of a step. Raises RunError if the run is incomplete or damaged."""
    trained = load_run(path, device=device, step=step)
    trained.model.decoder.lay_out_for_decoding()
    return Loaded(
        path=trained.run.path,
        output_name=trained.config.output.output_info.output_name,
        step=trained.checkpoint.step,
        n_parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        decoding_defaults=longest_trained(trained) | own_decoding(trained),
        tokenizer=trained.tokenizer,
        specs=trained.specs,
        model=TorchModel(trained.model),
        trained=trained,
    )


def own_decoding(trained: TrainedRun) -> dict[str, Any]:
    """Return the settings that are stored with a run for this checkpoint."""
    return stored_decoding(trained.run, trained.checkpoint, longest_trained(trained))


def longest_trained(trained: TrainedRun) -> dict[str, int]:
    """Return a run's own max_length, which leaves room for the end; nothing where it is an average, which many captions exceed."""
    return defaults_of(trained.config.output.output_type_info.max_length, trained.facts.max_length)


def defaults_of(max_length: int | str, longest: int) -> dict[str, int]:
    """Return the greatest length of a run whose longest caption is known; nothing where `max_length` is an average."""
    return {} if max_length == "average" else {"max_length": longest}
