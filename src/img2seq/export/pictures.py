"""Pictures that an export is compared with its run on: real ones, as long as the run's own can still be read."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from img2seq.data.image import Pixels, decode, from_any
from img2seq.data.picture import picture_bytes
from img2seq.data.records import Problems
from img2seq.data.seeds import seed_of
from img2seq.data.sources.read import match_images, read_captions
from img2seq.data.text import clean_name
from img2seq.errors import DataError, RunError
from img2seq.inference.captioner import Captioner
from img2seq.model.weights import first_line
from img2seq.progress import Announcer
from img2seq.run.folder import read_json


@dataclass(frozen=True)
class Pictures:
    """Pictures as the model takes them.

    Attributes:
        pixels: of each.
        where: what they are, in words.
        references: what people wrote of each; nothing where that is not known.
    """

    pixels: Sequence[Pixels]
    where: str
    references: Sequence[Sequence[str]] = field(default_factory=list)


def pictures_of(captioner: Captioner, most: int, announce: Announcer) -> Pictures:
    """Return validation pictures; where they are gone, which is said, samples that the run holds as the model saw them; else noise."""
    try:
        return _validation_pictures(captioner, most)
    except (DataError, RunError, OSError) as error:
        others = _other_pictures(captioner, most)
        announce.say(f"compared on {others.where}, for its validation pictures cannot be read: {first_line(error)}")
        return others


def _other_pictures(captioner: Captioner, most: int) -> Pictures:
    folder = captioner.trained.run.samples(captioner.loaded.output_name)
    paths = sorted(folder.glob(f"*/auto/*_inputs/{glob.escape(captioner.input_name)}.png"))[-most:]
    pixels = []
    for path in paths:
        with suppress(DataError):  # one that is broken is no reason against the export
            pixels.append(from_any(path, captioner.spec))
    if pixels:
        return Pictures(pixels, "the run's samples")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return Pictures([from_any(noise, captioner.spec)], "a picture of noise")


def _validation_pictures(captioner: Captioner, most: int) -> Pictures:
    trained, spec = captioner.trained, captioner.spec
    info, (entry,) = trained.config.output.output_info, trained.config.inputs
    ids = [clean_name(image_id) for image_id in read_json(trained.run.split)["valid"]]
    found, problems = read_captions(info.output_source, info), Problems()
    files, _ = match_images(found, ids, entry.input_info.input_source, entry.name, problems, info.output_source)
    chosen = sorted(files, key=lambda image_id: seed_of("export", image_id))[:most]
    if not chosen:
        raise DataError("no picture of the validation split was found")
    pixels = [decode(picture_bytes(files[image_id], spec), spec, str(files[image_id])) for image_id in chosen]
    return Pictures(pixels, "the validation split", [found.captions[image_id] for image_id in chosen])
