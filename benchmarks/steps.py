"""Single steps of our training, outside of a run: the trainer's own step, with nothing around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from img2seq.build.prepare import prepare
from img2seq.config.schema import Experiment
from img2seq.model.cpu.memory import keep_freed_memory
from img2seq.progress import Announcer
from img2seq.run.folder import RunFolder
from img2seq.training.loop import Trainer
from img2seq.training.work import Work


def trainer(config: Experiment, folder: Path) -> Trainer:
    """Return a trainer as `img2seq train` makes it, in training mode. The folder stays empty."""
    keep_freed_memory()
    announce = Announcer(level="critical", bars=False)
    made = Trainer(RunFolder(folder), config, prepare(config, announce), announce, time.monotonic())
    made.model.train()
    return made


def step(trainer: Trainer, work: Work) -> tuple[float, float]:
    """Take one optimiser step; return its seconds and its loss in nats per token."""
    begun = time.perf_counter()
    loss, _rate, _norm = trainer._step(work)
    trainer.state.step += 1
    return time.perf_counter() - begun, loss


def endless(trainer: Trainer) -> Iterator[Work]:
    """Yield what each step trains on, epoch after epoch."""
    epoch = 0
    while True:
        yield from trainer.work.steps(epoch, done=0)
        epoch += 1


def experiment(
    *,
    captions: Path,
    valid_ids: Path,
    folder: Path,
    images: Path | None = None,
    encoder: str = "resnet18",
    encoder_options: dict[str, Any] | None = None,
    pixels: int = 64,
    batch: int = 64,
    captions_per_image: int = 1,
    width: int = 128,
    layers: int = 6,
    lr: float = 3e-4,
    vocabulary: Path | None = None,
    workers: int = 0,
) -> Experiment:
    """Return an experiment with AdamW, a constant rate and no augmentation."""
    given: dict[str, Any] = {
        "globals": {
            "basic_experiment": {
                "output_folder": str(folder / "run"), "cache_folder": str(folder / "cache"), "n_epochs": 1, "batch_size": batch,
                "captions_per_image": captions_per_image, "manual_valid_ids_file": str(valid_ids),
                "dataloader_workers": workers,
            },
            "optimization": {"optimizer": "adamw", "lr": lr},
            "lr_schedule": {"lr_schedule": "same", "warmup_steps": 0},
        },
        "outputs": [{
            "output_info": {"output_source": str(captions), "output_name": "captions", "output_type": "sequence"},
            "output_type_info": {"max_length": "max", "min_freq": 1, "lowercase": True} | ({"vocab_file": str(vocabulary)} if vocabulary else {}),
            "model_config": {"embedding_dim": width, "model_init_config": {"num_layers": layers, "num_heads": 8}},
        }],
    }  # fmt: skip
    if images is not None:
        given["inputs"] = [{
            "input_info": {"input_source": str(images), "input_name": "image", "input_type": "image"},
            "input_type_info": {"size": [pixels], "auto_augment": False, "horizontal_flip": False, "mean_normalization_values": [0.5] * 3, "stds_normalization_values": [0.5] * 3},
            "model_config": {"model_type": encoder, "model_init_config": encoder_options or {}},
        }]  # fmt: skip
    return Experiment.model_validate(given)
