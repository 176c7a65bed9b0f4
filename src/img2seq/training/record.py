"""What a run writes down while it trains: history, events, curves, samples, and at the end what comparisons need."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from PIL import Image

from img2seq.build.assemble import LoadedRun, Prepared
from img2seq.config.decoding import Decoding
from img2seq.config.schema import Experiment
from img2seq.data.image import ImageSpec, decode, read_bytes
from img2seq.data.seeds import seed_of
from img2seq.generation.search import search
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer
from img2seq.report.curves import draw_learning_rate, draw_losses, read_curve, save_figure
from img2seq.report.gallery import Sample, draw_grid, thumbnail
from img2seq.run.folder import RunFolder, read_history, write_json, write_table, write_text
from img2seq.training.distributed import World
from img2seq.training.state import TrainState
from img2seq.training.validation import ImageLosses, image_losses

TRAIN_COLUMNS = ("iteration", "epoch", "loss", "learning_rate", "gradient_norm", "captions_per_s")
VALID_COLUMNS = (
    "iteration",
    "epoch",
    "train_loss",
    "valid_loss",
    "perplexity",
    "learning_rate",
    "captions_per_s",
    "elapsed_s",
)
EVENTS_EVERY = 10  # steps
GALLERY_IMAGES = 24


class Recorder:
    """Writes a run's history and pictures."""

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared, announce: Announcer, n_steps: int):
        self.run, self.config, self.prepared, self.announce, self.n_steps = (run, config, prepared, announce, n_steps)
        self.output = config.output.name
        self._train_file: TextIO | None = None
        self._events: Any = None

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Open the history after `step`: what a stopped run wrote beyond its last checkpoint is taken back."""
        last_evaluation = step if evaluated else step - 1
        for path, columns, last in (
            (self.run.history_train, TRAIN_COLUMNS, step),
            (self.run.history_valid, VALID_COLUMNS, last_evaluation),
        ):
            write_table(path, columns, [row for row in read_history(path) if int(row["iteration"]) <= last])
        self._train_file = self.run.history_train.open("a", encoding="utf-8", newline="")
        if self.config.globals.lr_schedule.plot_lr_schedule and step == 0:
            figure = draw_learning_rate([rate(i) for i in range(1, self.n_steps + 1)])
            save_figure(figure, self.run.figures / "learning_rate")

    def step(self, state: TrainState, loss: float, rate: float, norm: float, captions_per_s: float) -> None:
        """Note one step."""
        assert self._train_file is not None
        row = (state.step, state.epoch, f"{loss:.6f}", f"{rate:.6g}", f"{norm:.5g}", f"{captions_per_s:.1f}")
        csv.writer(self._train_file, lineterminator="\n").writerow(row)
        if state.step % EVENTS_EVERY == 0:
            self._event("train/loss", loss, state.step)
            self._event("train/learning_rate", rate, state.step)
            self._event("train/captions_per_s", captions_per_s, state.step)

    def evaluation(self, state: TrainState, loss: float, rate: float) -> None:
        """Note an evaluation, and draw the curves anew."""
        train_loss = state.train_nats / state.train_tokens if state.train_tokens else None
        speed = state.captions / state.train_time_s if state.train_time_s else 0.0
        row = {
            "iteration": state.step,
            "epoch": state.epoch,
            "train_loss": "" if train_loss is None else f"{train_loss:.6f}",
            "valid_loss": f"{loss:.6f}",
            "perplexity": f"{math.exp(min(loss, 50)):.4f}",
            "learning_rate": f"{rate:.6g}",
            "captions_per_s": f"{speed:.1f}",
            "elapsed_s": f"{state.elapsed_s:.1f}",
        }
        with self.run.history_valid.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, VALID_COLUMNS, lineterminator="\n").writerow(row)
        self._event("valid/loss", loss, state.step)
        self._event("valid/perplexity", math.exp(min(loss, 50)), state.step)
        self.flush()
        best = " (best so far)" if state.best_loss is None or loss < state.best_loss else ""
        shown = "" if train_loss is None else f"training loss {train_loss:.4f}, "
        self.announce.say(
            f"step {state.step}/{self.n_steps}: {shown}validation loss {loss:.4f}{best}, {speed:.0f} captions/s"
        )
        self._draw_curves(["png"])

    def _draw_curves(self, formats: list[str]) -> None:
        skip = self.config.globals.visualization_logging.plot_skip_steps
        figure = draw_losses([read_curve(self.run)], title=self.run.name, skip_steps=skip)
        save_figure(figure, self.run.figures / "training_curve_LOSS", formats=formats)

    def _event(self, name: str, value: float, step: int) -> None:
        if self._events is None:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self.run.tensorboard), purge_step=step)
        self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand what was noted to the system."""
        if self._train_file is not None:
            self._train_file.flush()
        if self._events is not None:
            self._events.flush()

    # --- samples

    def samples(self, step: int, model: CaptionModel) -> None:
        """Caption validation images and the configured manual inputs by sampling, as text files and one picture.

        They are not synced: training would wait for the disk many times, and no resume reads them.
        """
        if self.config.globals.evaluation_checkpoint.saved_result_detail_level < 5:
            return
        config = self.config.output.sampling_config
        decoding = Decoding.sampling(config, seed=self.config.globals.basic_experiment.seed)
        folder = self.run.samples(self.output) / str(step)
        chosen = gallery_ids(self.prepared.valid.image_ids, config.n_eval_inputs)
        if chosen:
            captions = self._caption(model, chosen, decoding)
            self._write_samples(folder / "auto", step, chosen, captions)
        if config.manual_inputs:
            self._write_manual(folder / "manual", model, decoding)

    def _caption(self, model: CaptionModel, image_ids: list[str], decoding: Decoding) -> list[str]:
        """Return a caption of each of these validation images."""
        model.eval()
        valid = self.prepared.valid
        place = {image_id: i for i, image_id in enumerate(valid.image_ids)}
        places = [place[image_id] for image_id in image_ids]
        images = {
            name: rows.read(places, image_ids, seed=0, epoch=None).to(model.device)
            for name, rows in valid.images.items()
        }
        with torch.inference_mode():
            memory = model.encode(images)
        found = search(model.decoder, memory, decoding, n_images=len(image_ids), names=image_ids)
        return [self.prepared.tokenizer.decode(hypotheses[0].tokens) for hypotheses in found]

    def _write_samples(self, folder: Path, step: int, image_ids: list[str], captions: list[str]) -> None:
        samples = []
        meta = {}
        for n, (image_id, caption) in enumerate(zip(image_ids, captions, strict=True)):
            true = self.prepared.valid.captions[self.prepared.valid.image_ids.index(image_id)]
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{n}_generated.txt", caption, synced=False)
            write_text(folder / f"{n}_true.txt", "\n".join(true), synced=False)
            write_text(inputs / f"{self.output}.txt", "", synced=False)
            picture = None
            for entry in self.config.inputs:
                path = self.prepared.files[entry.name][image_id]
                self._model_view(path, ImageSpec.of(entry.input_type_info)).save(inputs / f"{entry.name}.png")
                picture = picture or thumbnail(path)
            samples.append(Sample(image_id, caption, true, picture))
            meta[image_id] = {
                "generated": f"auto/{n}_generated.txt",
                "true": f"auto/{n}_true.txt",
                "inputs": f"auto/{n}_inputs",
                "index": n,
            }
        write_json(folder.parent / "meta.json", meta, synced=False)
        draw_grid(samples, title=f"{self.run.name}, step {step}: generated (bold) and true captions").save(
            folder.parent / "grid.jpg", quality=90, subsampling=0
        )

    def _model_view(self, path: Path, spec: ImageSpec) -> Image.Image:
        """Return the picture at working size, as the model sees it."""
        pixels = decode(read_bytes(path, spec), spec, str(path))
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def _write_manual(self, folder: Path, model: CaptionModel, decoding: Decoding) -> None:
        model.eval()
        for n, entry in enumerate(self.config.output.sampling_config.manual_inputs):
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            images = {}
            for image_input in self.config.inputs:
                spec = ImageSpec.of(image_input.input_type_info)
                pixels = decode(read_bytes(entry[image_input.name], spec), spec, entry[image_input.name])
                images[image_input.name] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(model.device)
                Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
                    inputs / f"{image_input.name}.png"
                )
            with torch.inference_mode():
                memory = model.encode(images)
            beginning = entry.get(self.output, "")
            tokens = self.prepared.tokenizer.encode(beginning)
            found = search(model.decoder, memory, decoding, n_images=1, beginnings=[tokens], names=[str(n)])
            write_text(folder / f"{n}_generated.txt", self.prepared.tokenizer.decode(found[0][0].tokens), synced=False)
            write_text(inputs / f"{self.output}.txt", beginning, synced=False)

    # --- the end

    def finish(self, state: TrainState, loaded: LoadedRun, losses: dict[str, ImageLosses]) -> None:
        """Write what `img2seq compare` needs, of the best checkpoint, then close."""
        self.flush()
        self._draw_curves(["png", "pdf"])
        columns: dict[str, Any] = {"image_id": self.prepared.valid.image_ids}
        for name, found in losses.items():
            columns["tokens"] = found.tokens.tolist()
            columns[name] = [f"{nats:.6f}" for nats in found.nats.tolist()]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        write_table(self.run.validation / "images.csv", columns, rows)
        self._write_gallery(loaded.model)
        parameters = sum(p.numel() for p in loaded.model.parameters())
        write_json(
            self.run.validation / "summary.json",
            {
                "step": loaded.checkpoint.step,
                "valid_loss": loaded.checkpoint.valid_loss,
                "steps": state.step,
                "elapsed_s": round(state.elapsed_s, 1),
                "captions_per_s": round(state.captions / state.train_time_s, 1) if state.train_time_s else None,
                "parameters": parameters,
                "tokenizer": self.prepared.tokenizer.digest,
            },
        )
        self.announce.say(
            f"best validation loss {loaded.checkpoint.valid_loss:.4f} nats per token, at step {loaded.checkpoint.step}; the run is in {self.run.path}"
        )

    def _write_gallery(self, model: CaptionModel) -> None:
        """Caption the gallery's images by beam search and keep small pictures of them."""
        chosen = gallery_ids(self.prepared.valid.image_ids, GALLERY_IMAGES)
        captions = self._caption(
            model, chosen, Decoding(max_length=self.config.output.sampling_config.generated_sequence_length)
        )
        place = {image_id: i for i, image_id in enumerate(self.prepared.valid.image_ids)}
        entries = []
        for n, (image_id, caption) in enumerate(zip(chosen, captions, strict=True)):
            entry: dict[str, Any] = {
                "image_id": image_id,
                "caption": caption,
                "true": self.prepared.valid.captions[place[image_id]],
            }
            for name in [entry.name for entry in self.config.inputs][:1]:
                entry["picture"] = f"pictures/{n}.jpg"
                (self.run.validation / "pictures").mkdir(parents=True, exist_ok=True)
                thumbnail(self.prepared.files[name][image_id]).save(
                    self.run.validation / "pictures" / f"{n}.jpg", quality=85
                )
            entries.append(entry)
        write_json(self.run.validation / "captions.json", entries)

    def close(self) -> None:
        """Flush and close all files."""
        if self._train_file is not None:
            self._train_file.close()
            self._train_file = None
        if self._events is not None:
            self._events.close()
            self._events = None


class NoRecorder(Recorder):
    """What the other processes of a run have in its place: nothing is written."""

    def begin(self, step: int, rate: Callable[[int], float], *, evaluated: bool = False) -> None:
        """Do nothing."""

    def step(self, state: TrainState, loss: float, rate: float, norm: float, captions_per_s: float) -> None:
        """Do nothing."""

    def evaluation(self, state: TrainState, loss: float, rate: float) -> None:
        """Do nothing."""

    def samples(self, step: int, model: CaptionModel) -> None:
        """Do nothing."""

    def finish(self, state: TrainState, loaded: LoadedRun, losses: dict[str, ImageLosses]) -> None:
        """Do nothing."""


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


def gallery_ids(image_ids: list[str], n: int) -> list[str]:
    """Return n ids that depend on the ids alone, so that every run of the same split shows the same pictures."""
    return sorted(image_ids, key=lambda image_id: seed_of("gallery", image_id))[:n]
