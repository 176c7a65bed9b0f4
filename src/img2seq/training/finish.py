"""What is left of a run at its end: losses and captions of the best checkpoint, which comparisons need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from img2seq.build.prepare import Prepared
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.config.schema import Experiment
from img2seq.metrics.most_frequent import most_frequent
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer
from img2seq.run.folder import RunFolder
from img2seq.run.write import write_json, write_table
from img2seq.training.distributed import World
from img2seq.training.samples import SampleWriter
from img2seq.training.state import TrainState
from img2seq.training.validation import ImageLosses, image_losses

GALLERY_IMAGES = 24


def last_losses(
    model: CaptionModel, config: Experiment, prepared: Prepared, announce: Announcer, world: World
) -> dict[str, ImageLosses]:
    """Return the loss of each validation image by column, under its own picture and, where there are any, another's."""
    basic, valid = config.globals.basic_experiment, prepared.valid
    sets = {"loss_nats": valid}
    if config.inputs and len(valid) > 1:
        sets["loss_nats_shuffled"] = valid.with_shuffled_images()
    with announce.bar("last evaluation", len(valid) * len(sets)) as advance:
        return {
            name: image_losses(
                model, data, batch_size=basic.batch_size, workers=basic.dataloader_workers, world=world, advance=advance
            )
            for name, data in sets.items()
        }


def write_losses(run: RunFolder, image_ids: list[str], losses: dict[str, ImageLosses]) -> None:
    """Write the loss of each validation image."""
    columns: dict[str, Any] = {"image_id": image_ids}
    for name, found in losses.items():
        columns["tokens"] = found.tokens.tolist()
        columns[name] = found.nats.tolist()
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    write_table(run.validation / "images.csv", columns, rows)


def write_gallery(samples: SampleWriter, model: CaptionModel) -> None:
    """Caption the gallery's images by beam search and keep small pictures of them."""
    folder = samples.run.validation
    chosen = samples.choose_images(GALLERY_IMAGES)
    most = samples.config.output.sampling_config.generated_sequence_length
    captions = samples.caption(model, chosen, Decoding(max_length=most))
    entries = []
    for n, (image_id, caption) in enumerate(zip(chosen, captions, strict=True)):
        entry: dict[str, Any] = {"image_id": image_id, "caption": caption, "true": samples.true_captions(image_id)}
        if (picture := samples.picture(image_id)) is not None:
            entry["picture"] = f"pictures/{n}.jpg"
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            picture.save(folder / "pictures" / f"{n}.jpg", quality=85)
        entries.append(entry)
    write_json(folder / "captions.json", entries)


def write_summary(
    run: RunFolder, state: TrainState, best: TrainedRun, training_captions: Iterable[str], *, best_by: str
) -> None:
    """Write the figures of a run that its comparison shows; last, for they tell that it is finished."""
    scores = best.checkpoint.state().get("scores")
    write_json(
        run.validation / "summary.json",
        {
            "step": best.checkpoint.step,
            "valid_loss": best.checkpoint.valid_loss,
            **({"scores": scores, "best_by": best_by} if scores else {}),
            "steps": state.step,
            "elapsed_s": state.elapsed_s,
            "captions_per_s": state.captions / state.train_time_s if state.train_time_s else None,
            "parameters": sum(p.numel() for p in best.model.parameters()),
            "tokenizer": best.tokenizer.digest,
            "most_frequent_caption": most_frequent(training_captions),
        },
    )
