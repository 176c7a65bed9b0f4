"""The training step beside Hugging Face's VisionEncoderDecoderModel: forward, backward, clipping and AdamW, encoder trained.

    python -m benchmarks hugging_face [--repeats 3] [--encoders resnet18] [--captions 5] [--no-pass]

Both sides have an encoder of the same shape at 224 pixels and a decoder of the size of examples/flickr8k, and train on the same
batches of BATCH real captions, in processes of their own, a few steps in turn. Hugging Face's side repeats an image for each
of its captions, as its users do. Losses after as many steps stand beside the speeds; a few steps tell little, so both also
take a pass over PASS_STEPS batches of small images, each seen once. A part that is left out keeps its last result.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.figures import result, save, show, spread
from benchmarks.peers import HUGGING_FACE, Session, interpreter
from benchmarks.photographs import VALID, photographs
from benchmarks.summary import ENCODERS
from img2seq.config.outputs import SequenceTypeInfo
from img2seq.data.sources.read import read_captions
from img2seq.data.vocabulary import build_tokenizer

BATCH, PIXELS, WIDTH, LAYERS, HEADS, LR = 30, 224, 256, 3, 8, 3e-4
N_TRAIN, N_BATCHES = 150, 5  # photographs, and different batches that the steps go round
STEPS, WARM_STEPS = 4, 2
PASS_STEPS, PASS_PIXELS, PASS_LAST = 200, 64, 50
LAST = 5  # steps whose mean loss is reported


class Sides:
    """Both sides on one model and the same batches, in the order in which they are asked."""

    def __init__(self, encoder: str, captions_per_image: int, data: dict[str, Path], *, pixels: int, n_batches: int):
        folder = data["vocabulary"].parent
        batches = str(folder / "batches.npz")
        ours = Session("training_steps", sys.executable)
        theirs = Session("hugging_face_steps", interpreter(HUGGING_FACE))
        self.sessions = {"hugging_face": theirs, "ours": ours}
        about = ours.ask(
            images=str(data["images"]), captions=str(data["five" if captions_per_image > 1 else "one"]), valid_ids=str(data["valid_ids"]),
            folder=str(folder), vocabulary=str(data["vocabulary"]), encoder=encoder, pixels=pixels, batch=BATCH,
            captions_per_image=captions_per_image, width=WIDTH, layers=LAYERS, lr=LR, batches=batches, n_batches=n_batches,
        )  # fmt: skip
        of_peer = theirs.ask(
            name=encoder, pixels=pixels, vocabulary=about["vocabulary"], width=WIDTH, layers=LAYERS, heads=HEADS, lr=LR, batches=batches
        )  # fmt: skip
        self.parameters = {"ours": about["parameters"], "hugging_face": of_peer["parameters"]}
        self.version = of_peer["version"]

    def close(self) -> None:
        """Let both programs end."""
        for session in self.sessions.values():
            session.close()


def speeds(encoder: str, captions_per_image: int, data: dict[str, Path], repeats: int) -> dict[str, Any]:
    """Measure a few steps of both sides in turn."""
    with closing(Sides(encoder, captions_per_image, data, pixels=PIXELS, n_batches=N_BATCHES)) as sides:
        losses = {name: list(side.ask(steps=WARM_STEPS)["losses"]) for name, side in sides.sessions.items()}
        found: dict[str, list[float]] = {name: [] for name in losses}
        for _ in range(repeats):
            for name, side in sides.sessions.items():
                taken = side.ask(steps=STEPS)
                found[name].append(BATCH / statistics.median(taken["seconds"]))
                losses[name] += taken["losses"]
        return {
            "encoder": encoder,
            "captions_per_image": captions_per_image,
            "transformers": sides.version,
            "parameters": sides.parameters,
            "captions_per_s": {name: spread(values) for name, values in found.items()},
            "ratio": statistics.median(found["ours"]) / statistics.median(found["hugging_face"]),
            "steps": len(losses["ours"]),
            "losses": {name: statistics.mean(values[-LAST:]) for name, values in losses.items()},
        }


def one_pass(data: dict[str, Path]) -> dict[str, Any]:
    """Train both sides on the same PASS_STEPS batches, each seen once, of small images: does either learn less in a step?"""
    losses: dict[str, list[float]] = {}
    with closing(Sides("resnet18", 1, data, pixels=PASS_PIXELS, n_batches=PASS_STEPS)) as sides:
        for name, side in sides.sessions.items():
            losses[name] = side.ask(steps=PASS_STEPS)["losses"]
    last = {name: statistics.mean(values[-PASS_LAST:]) for name, values in losses.items()}
    return {"steps": PASS_STEPS, "pixels": PASS_PIXELS, "last": PASS_LAST, "losses": last, "curves": losses}


def photographs_with_vocabulary(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return a few photographs for steps and many for the pass, with one vocabulary, that of all captions."""
    many = photographs(folder / "many", VALID + BATCH * PASS_STEPS)
    info = SequenceTypeInfo(min_freq=5, lowercase=True)
    texts = [text for of_image in read_captions(str(many["five"])).captions.values() for text in of_image]
    vocabulary = {"vocabulary": folder / "vocabulary.json"}
    vocabulary["vocabulary"].write_text(build_tokenizer(info, texts).to_json(), encoding="utf-8")
    return photographs(folder / "few", VALID + N_TRAIN) | vocabulary, many | vocabulary


def main(line: list[str]) -> None:
    """Measure, print the table and write what was measured to benchmarks/results/hugging_face.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks hugging_face", description=__doc__)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--encoders", nargs="*", choices=ENCODERS, default=list(ENCODERS))
    options.add_argument("--captions", nargs="+", type=int, choices=(1, 5), default=[1, 5], help="of an image")
    options.add_argument("--no-pass", action="store_true", help="leave out the losses of a longer pass")
    chosen = options.parse_args(line)
    kept = result("hugging_face")
    rows = {(row["encoder"], row["captions_per_image"]): row for row in kept.get("rows", [])}
    with tempfile.TemporaryDirectory() as temporary:
        few, many = photographs_with_vocabulary(Path(temporary))
        print(f"{'encoder':<12}{'captions an image':>18}{'Hugging Face':>22}{'img2seq':>22}{'ratio':>8}   captions/s; mean loss of the last {LAST} steps", flush=True)  # fmt: skip
        for encoder, captions_per_image in itertools.product(chosen.encoders, chosen.captions):
            row = speeds(encoder, captions_per_image, few, chosen.repeats)
            cells = [show(row["captions_per_s"][side]) for side in ("hugging_face", "ours")]
            print(
                f"{ENCODERS[encoder]:<12}{captions_per_image:>18}{cells[0]:>22}{cells[1]:>22}{row['ratio']:>7.1f}x   "
                f"{row['losses']['hugging_face']:.3f} and {row['losses']['ours']:.3f} after {row['steps']} steps",
                flush=True,
            )
            rows[encoder, captions_per_image] = row
        whole = kept.get("pass") if chosen.no_pass else one_pass(many)
    if whole:
        print(
            f"after {whole['steps']} steps of ResNet-18 at {whole['pixels']} pixels, every batch seen once, mean loss of the last {whole['last']}: "
            f"Hugging Face {whole['losses']['hugging_face']:.3f}, img2seq {whole['losses']['ours']:.3f} nats per token"
        )
    ordered = [rows[key] for key in itertools.product(ENCODERS, (1, 5)) if key in rows]
    save("hugging_face", {"batch": BATCH, "rows": ordered, "pass": whole})
