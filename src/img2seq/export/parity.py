"""Compare an export with the run it was made from, on pictures: captions, logits, scores, size, speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from img2seq.config.decoding import Decoding
from img2seq.data.tokenizer import BOS
from img2seq.errors import RunError, shown
from img2seq.export.pictures import Pictures
from img2seq.generation.model_step import ModelStep
from img2seq.generation.onnx_step import OnnxStep
from img2seq.inference.captioner import Captioner
from img2seq.inference.from_export import captioning_export
from img2seq.inference.onnx_model import OnnxModel
from img2seq.inference.predictor import Caption
from img2seq.metrics import score
from img2seq.progress import Announcer, counted
from img2seq.run.onnx_folder import OnnxFolder, Precision

PICTURES = 200
TIE = 1e-4  # nats
EQUAL_AT_LEAST = 0.999  # of captions, in single precision
TIMED = 10  # pictures, one at a time
SEARCHES: dict[str, dict[str, Any]] = {"greedy": {"method": "greedy"}, "beam_5": {"method": "beam", "beam_size": 5}}


def compare_onnx(
    captioner: Captioner, folder: Path, precisions: Sequence[Precision], pictures: Pictures, announce: Announcer
) -> dict[str, Any]:
    """Return the report of a comparison. Raises RunError where captions in single precision are not the run's."""
    onnx = OnnxFolder(folder)
    report: dict[str, Any] = {"pictures": len(pictures.pixels), "of": pictures.where, "run": {}}
    with announce.bar("comparing captions", (1 + len(precisions)) * len(SEARCHES)) as advance:
        expected = {name: _captions(captioner, pictures, name, advance) for name in SEARCHES}
        report["run"] = {"one_picture_s": _seconds(captioner, pictures), **_score(expected, pictures)}
        for precision in precisions:
            export = Captioner(captioning_export(folder, device="cpu", step=None, precision=precision))
            found = {name: _captions(export, pictures, name, advance) for name in SEARCHES}
            equal = {name: _share_equal(expected[name], found[name]) for name in SEARCHES}
            report[precision] = {
                "bytes": sum(place(precision).stat().st_size for place in (onnx.encoder, onnx.decoder)),
                "largest_logit_difference": _logit_difference(captioner, export, pictures, expected["greedy"]),
                "equal_captions": equal,
                "one_picture_s": _seconds(export, pictures),
                **_score(found, pictures),
            }
            if (
                precision == "fp32"
                and min(_share_equal_but_for_ties(expected[n], found[n]) for n in SEARCHES) < EQUAL_AT_LEAST
            ):
                raise RunError(f"not exported: {_first_difference(expected, found)}")
    return report


def _captions(captioner: Captioner, pictures: Pictures, search: str, advance: Any) -> list[Caption]:
    settings = Decoding.of(captioner.decoding_defaults | SEARCHES[search])
    names = [str(n) for n in range(len(pictures.pixels))]
    found: list[Caption] = []
    for start in range(0, len(names), captioner.batch_size):
        part = slice(start, start + captioner.batch_size)
        views = [{captioner.input_name: pixels} for pixels in pictures.pixels[part]]
        found += captioner.caption_views(views, settings, names=names[part])
    advance(1)
    return found


def _share_equal(expected: Sequence[Caption], found: Sequence[Caption]) -> float:
    return sum(one.tokens == other.tokens for one, other in zip(expected, found, strict=True)) / len(expected)


def _share_equal_but_for_ties(expected: Sequence[Caption], found: Sequence[Caption]) -> float:
    """Return the share of captions that are equal, or as probable as the run's up to rounding: of two that tie either may be found."""
    pairs = list(zip(expected, found, strict=True))
    return sum(
        one.tokens == other.tokens or abs(one.log_probability - other.log_probability) < TIE for one, other in pairs
    ) / len(pairs)


def _first_difference(expected: dict[str, list[Caption]], found: dict[str, list[Caption]]) -> str:
    pairs = [pair for name in SEARCHES for pair in zip(expected[name], found[name], strict=True)]
    different = [(one, other) for one, other in pairs if one.tokens != other.tokens]
    (one, other), *_ = different
    return (
        f"{counted(len(different), 'caption')} of {len(pairs)} differ from the run's; the export writes {shown(other.text)} "
        f"where the run writes {shown(one.text)}"
    )


def _score(captions: dict[str, list[Caption]], pictures: Pictures) -> dict[str, Any]:
    """Return CIDEr-D of each search, where it is known what people wrote."""
    if not pictures.references:
        return {}
    references = {str(n): list(texts) for n, texts in enumerate(pictures.references)}
    scores = {
        name: score({str(n): caption.text for n, caption in enumerate(found)}, references).corpus.get("cider_d")
        for name, found in captions.items()
    }
    return {"cider_d": scores}


def _seconds(captioner: Captioner, pictures: Pictures) -> float:
    """Return the median time of one picture, from pixels to caption, with the settings that are used unasked."""
    settings, times = Decoding.of(captioner.decoding_defaults), []
    for pixels in [pictures.pixels[0], *pictures.pixels[:TIMED]]:
        begun = time.perf_counter()
        captioner.caption_views([{captioner.input_name: pixels}], settings, names=["0"])
        times.append(time.perf_counter() - begun)
    return round(statistics.median(times[1:]), 5)


@torch.inference_mode()
def _logit_difference(
    captioner: Captioner, export: Captioner, pictures: Pictures, captions: Sequence[Caption]
) -> float:
    """Return the largest difference of a logit, while both write the run's captions of a batch."""
    n, name = min(len(captions), captioner.batch_size), captioner.input_name
    pixels = captioner.predictor.pixel_batch(name, pictures.pixels[:n])
    model, onnx = captioner.trained.model, export.loaded.model
    assert isinstance(onnx, OnnxModel)
    first = ModelStep(model.own_decoder, model.encode(pixels={name: torch.from_numpy(pixels)}, features={}), n_images=n)
    second = OnnxStep(onnx.decoder, {"encoder_hidden_states": onnx.encode(pixels)}, n)
    numbers = {token: number for number, token in enumerate(captioner.loaded.tokenizer.tokens)}
    longest = max(len(caption.tokens) for caption in captions[:n])
    rows = [[BOS, *(numbers[token] for token in caption.tokens)] for caption in captions[:n]]
    tokens = np.array([row + [BOS] * (longest + 1 - len(row)) for row in rows])[:, :longest]
    for step in (first, second):
        step.begin(n_rows=1, group=1, max_tokens=longest)
    differences = [
        np.abs(first.next_logits(torch.from_numpy(column)).numpy() - second.next_logits(column)).max()
        for column in tokens.T.copy()
    ]
    return float(max(differences))
