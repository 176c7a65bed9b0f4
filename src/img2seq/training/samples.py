"""Captions sampled while a run trains, beneath their pictures: text files, and one picture of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from img2seq.build.facts import image_specs
from img2seq.build.prepare import Prepared
from img2seq.config.decoding import SETTINGS, Decoding
from img2seq.config.outputs import SamplingConfig
from img2seq.config.schema import Experiment
from img2seq.data.image import Pixels, decode, read_bytes
from img2seq.data.picture import picture_bytes
from img2seq.data.seeds import seed_of
from img2seq.inference.predictor import Predictor
from img2seq.inference.torch_model import TorchModel
from img2seq.model.caption_model import CaptionModel
from img2seq.model.weights import first_line
from img2seq.report.gallery import Sample, draw_grid, letters_without_font, thumbnail
from img2seq.run.folder import RunFolder
from img2seq.run.write import write_json, write_text


def sampling(config: SamplingConfig, *, seed: int) -> Decoding:
    """Return the decoding that an output's `sampling_config` asks for."""
    values = config.model_dump()
    chosen = {name: values[name] for name in SETTINGS if name in values}
    return Decoding(method="sample", max_length=values["generated_sequence_length"], seed=seed, **chosen)


def choose_images(image_ids: Iterable[str], n: int) -> list[str]:
    """Return n ids that depend on the ids alone, so that every run of the same split shows the same pictures."""
    return sorted(image_ids, key=lambda image_id: seed_of("gallery", image_id))[:n]


class SampleWriter:
    """Captions some validation images and the configured manual inputs.

    Captions need the cache alone. Pictures of them are made of the original files; where one cannot be read any more, the
    pixels that the model sees stand for it.
    """

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared, warn: Callable[[str], None]):
        self.run, self.config, self.prepared, self.warn = run, config, prepared, warn
        self.output = config.output.name
        self.specs = image_specs(config.inputs)
        self.place_of = {image_id: place for place, image_id in enumerate(prepared.valid.image_ids)}
        self._warned_of_pictures = self._looked_for_letters = False
        self.also: Callable[[list[Sample], int], None] = lambda samples, step: None  # who else gets samples

    def write(self, step: int, model: CaptionModel) -> None:
        """Caption by sampling, and write what came of it.

        Files are not synced: training would wait for the disk many times, and no resume reads them. meta.json is the last one.
        """
        config = self.config.output.sampling_config
        decoding = sampling(config, seed=self.config.globals.basic_experiment.seed)
        folder, meta = self._folder(step), {}
        if config.manual_inputs:
            self._write_manual(folder / "manual", model, decoding)
        if chosen := self.choose_images(config.n_eval_inputs):
            captions = self.caption(model, chosen, decoding)
            meta = self._write_samples(folder / "auto", step, chosen, captions)
        if meta or config.manual_inputs:
            write_json(folder / "meta.json", meta, synced=False)

    def is_written(self, step: int) -> bool:
        """Return whether nothing is left to write of a step's samples."""
        config = self.config.output.sampling_config
        return not (config.n_eval_inputs or config.manual_inputs) or (self._folder(step) / "meta.json").exists()

    def _folder(self, step: int) -> Path:
        return self.run.samples(self.output) / str(step)

    def choose_images(self, n: int) -> list[str]:
        """Return n ids of validation images."""
        return choose_images(self.place_of, n)

    def caption(self, model: CaptionModel, image_ids: list[str], decoding: Decoding) -> list[str]:
        """Return a caption of each of these validation images."""
        pixels, features = self.prepared.valid.read_images([self.place_of[image_id] for image_id in image_ids])
        predictor = Predictor(TorchModel(model), self.prepared.tokenizer, self.specs)
        found = predictor.captions(decoding, names=image_ids, pixels=pixels, features=features)
        return [caption.text for caption in found]

    def true_captions(self, image_id: str) -> list[str]:
        """Return what people wrote of a validation image."""
        return self.prepared.valid.captions[self.place_of[image_id]]

    def training_captions(self) -> Iterator[str]:
        """Yield what people wrote of the training images."""
        return (caption for captions in self.prepared.train.captions for caption in captions)

    def seen(self, image_id: str) -> dict[str, Image.Image]:
        """Return what the model sees of a validation image, by input: from the cache, or of cached features from its file."""
        pixels, _ = self.prepared.valid.read_images([self.place_of[image_id]])
        found = {name: _as_picture(batch[0].permute(1, 2, 0).numpy()) for name, batch in pixels.items()}
        for name, spec in self.specs.items():
            if name not in found:
                with self._picture_may_fail():
                    path = self.prepared.files[name][image_id]
                    found[name] = _as_picture(decode(picture_bytes(path, spec), spec, str(path)))
        return found

    def picture(self, image_id: str) -> Image.Image | None:
        """Return a small picture of a validation image's first input; None without inputs, or where it is lost."""
        for name in list(self.specs)[:1]:
            with self._picture_may_fail():
                return thumbnail(self.prepared.files[name][image_id])
            seen = self.seen(image_id).get(name)
            return seen and seen.convert("RGB")
        return None

    @contextmanager
    def _picture_may_fail(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._warned_of_pictures:
                self.warn(f"a picture for samples cannot be read, training goes on without: {first_line(error)}")
            self._warned_of_pictures = True

    def _write_samples(
        self, folder: Path, step: int, image_ids: list[str], captions: list[str]
    ) -> dict[str, dict[str, str | int]]:
        """Write samples, and return what meta.json says of them."""
        samples = []
        meta: dict[str, dict[str, str | int]] = {}
        for n, (image_id, caption) in enumerate(zip(image_ids, captions, strict=True)):
            true = self.true_captions(image_id)
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{n}_generated.txt", caption, synced=False)
            write_text(folder / f"{n}_true.txt", "\n".join(true), synced=False)
            write_text(inputs / f"{self.output}.txt", "", synced=False)
            for name, seen in self.seen(image_id).items():
                seen.save(inputs / f"{name}.png")
            samples.append(Sample(image_id, caption, true, self.picture(image_id)))
            meta[image_id] = {
                "generated": f"auto/{n}_generated.txt",
                "true": f"auto/{n}_true.txt",
                "inputs": f"auto/{n}_inputs",
                "index": n,
            }
        self.also(samples, step)
        if not self._looked_for_letters and (
            lacking := letters_without_font("".join(t for s in samples for t in s.true))
        ):
            self.warn(lacking)
        self._looked_for_letters = True
        draw_grid(samples, title=f"{self.run.name}, step {step}: generated (bold) and true captions").save(
            folder.parent / "grid.jpg", quality=90, subsampling=0
        )
        return meta

    def _write_manual(self, folder: Path, model: CaptionModel, decoding: Decoding) -> None:
        predictor = Predictor(TorchModel(model), self.prepared.tokenizer, self.specs)
        for n, entry in enumerate(self.config.output.sampling_config.manual_inputs):
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            pixels = {}
            for name, spec in self.specs.items():
                picture = decode(read_bytes(entry[name], spec), spec, entry[name])
                pixels[name] = predictor.pixel_batch(name, [picture])
                _as_picture(pixels[name][0].transpose(1, 2, 0)).save(inputs / f"{name}.png")
            beginning = entry.get(self.output, "")
            (caption,) = predictor.captions(
                decoding, names=[str(n)], pixels=pixels, beginnings=[self.prepared.tokenizer.encode(beginning)]
            )
            write_text(folder / f"{n}_generated.txt", caption.text, synced=False)
            write_text(inputs / f"{self.output}.txt", beginning, synced=False)


def _as_picture(pixels: Pixels) -> Image.Image:
    """Return (H, W, C) pixels of the working size as a picture."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
