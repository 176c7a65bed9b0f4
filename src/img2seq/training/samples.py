"""Captions sampled while a run trains, beneath their pictures: text files, and one picture of them all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from img2seq.build.facts import image_specs
from img2seq.build.prepare import Prepared
from img2seq.config.decoding import Decoding
from img2seq.config.schema import Experiment
from img2seq.data.image import Pixels, decode, read_bytes
from img2seq.data.seeds import seed_of
from img2seq.inference.predictor import Predictor
from img2seq.model.caption_model import CaptionModel
from img2seq.report.gallery import Sample, draw_grid, thumbnail
from img2seq.run.folder import RunFolder
from img2seq.run.write import write_json, write_text


class SampleWriter:
    """Captions some validation images and the configured manual inputs."""

    def __init__(self, run: RunFolder, config: Experiment, prepared: Prepared):
        self.run, self.config, self.prepared = run, config, prepared
        self.output = config.output.name
        self.specs = image_specs(config.inputs)
        self.place_of = {image_id: place for place, image_id in enumerate(prepared.valid.image_ids)}

    def write(self, step: int, model: CaptionModel) -> None:
        """Caption by sampling, and write what came of it.

        Files are not synced: training would wait for the disk many times, and no resume reads them.
        """
        config = self.config.output.sampling_config
        decoding = Decoding.sampling(config, seed=self.config.globals.basic_experiment.seed)
        folder = self.run.samples(self.output) / str(step)
        chosen = self.choose_images(config.n_eval_inputs)
        if chosen:
            captions = self.caption(model, chosen, decoding)
            self._write_samples(folder / "auto", step, chosen, captions)
        if config.manual_inputs:
            self._write_manual(folder / "manual", model, decoding)

    def choose_images(self, n: int) -> list[str]:
        """Return n ids that depend on the ids alone, so that every run of the same split shows the same pictures."""
        return sorted(self.place_of, key=lambda image_id: seed_of("gallery", image_id))[:n]

    def caption(self, model: CaptionModel, image_ids: list[str], decoding: Decoding) -> list[str]:
        """Return a caption of each of these validation images."""
        pixels, features = self.prepared.valid.read_images([self.place_of[image_id] for image_id in image_ids])
        predictor = Predictor(model, self.prepared.tokenizer, self.specs)
        found = predictor.captions(decoding, names=image_ids, pixels=pixels, features=features)
        return [caption.text for caption in found]

    def true_captions(self, image_id: str) -> list[str]:
        """Return what people wrote of a validation image."""
        return self.prepared.valid.captions[self.place_of[image_id]]

    def _write_samples(self, folder: Path, step: int, image_ids: list[str], captions: list[str]) -> None:
        samples = []
        meta = {}
        for n, (image_id, caption) in enumerate(zip(image_ids, captions, strict=True)):
            true = self.true_captions(image_id)
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{n}_generated.txt", caption, synced=False)
            write_text(folder / f"{n}_true.txt", "\n".join(true), synced=False)
            write_text(inputs / f"{self.output}.txt", "", synced=False)
            picture = None
            for name, spec in self.specs.items():
                path = self.prepared.files[name][image_id]
                _as_seen(decode(read_bytes(path, spec), spec, str(path))).save(inputs / f"{name}.png")
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

    def _write_manual(self, folder: Path, model: CaptionModel, decoding: Decoding) -> None:
        predictor = Predictor(model, self.prepared.tokenizer, self.specs)
        for n, entry in enumerate(self.config.output.sampling_config.manual_inputs):
            inputs = folder / f"{n}_inputs"
            inputs.mkdir(parents=True, exist_ok=True)
            pixels = {}
            for name, spec in self.specs.items():
                picture = decode(read_bytes(entry[name], spec), spec, entry[name])
                pixels[name] = predictor.pixel_batch(name, [picture])
                _as_seen(picture).save(inputs / f"{name}.png")
            beginning = entry.get(self.output, "")
            (caption,) = predictor.captions(
                decoding, names=[str(n)], pixels=pixels, beginnings=[self.prepared.tokenizer.encode(beginning)]
            )
            write_text(folder / f"{n}_generated.txt", caption.text, synced=False)
            write_text(inputs / f"{self.output}.txt", beginning, synced=False)


def _as_seen(pixels: Pixels) -> Image.Image:
    """Return pixels of the working size as a picture."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
