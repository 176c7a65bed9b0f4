"""Write a lean run: what captioning and serving need, and nothing of training.

    config.yaml, facts.json, tokenizer.json     the run's own, byte for byte; decoding.json where the run has one for this checkpoint
    digests.json                                their SHA-256
    checkpoints/step-00000123/                  weights.safetensors and state.json of one checkpoint, byte for byte; manifest.json of the two
    export.json                                 what it was made from
    README.txt

It is a run folder, which `build/trained.py` reads as any other. With a language model taken along, weights and config.yaml are written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from img2seq import __version__
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.config.schema import Experiment
from img2seq.config.show import to_yaml
from img2seq.errors import RunError, shown
from img2seq.export.pictures import Pictures
from img2seq.inference.captioner import Captioner
from img2seq.inference.from_run import own_decoding
from img2seq.progress import Announcer, counted
from img2seq.run.checkpoint import Checkpoint, all_checkpoints, manifest_entry, manifest_text
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.snapshot import Snapshot
from img2seq.run.write import sign, to_disk, write_json, write_text

FORMAT_VERSION = 1
README = Path(__file__).with_name("readme.txt")
PART_BYTES = 1 << 24


def write_lean_run(trained: TrainedRun, folder: Path, announce: Announcer) -> None:
    """Write all files, and return when they have reached the disk."""
    run, checkpoint, export = trained.run, trained.checkpoint, RunFolder(folder)
    to = Checkpoint(export.checkpoints / f"step-{checkpoint.step:08d}")
    to.path.mkdir(parents=True)
    files = [run.config, run.facts, run.tokenizer, checkpoint.path / "state.json", checkpoint.weights]
    files += [run.decoding] if own_decoding(trained) else []
    with announce.bar("exporting", sum(path.stat().st_size for path in files), unit="B") as advance:
        for path in files:
            _copy(path, (to.path if path.parent == checkpoint.path else export.path) / path.name, advance)
    described = read_json(checkpoint.path / "manifest.json")["files"]
    described = {name: entry for name, entry in described.items() if (to.path / name).exists()}
    write_text(to.path / "manifest.json", manifest_text(described))
    sign(export)
    write_text(export.readme, README.read_text(encoding="utf-8"))
    write_json(export.export, _made_from(trained))
    for place in (to.path, export.checkpoints, export.path):
        to_disk(place)


def replace_weights(export: RunFolder, tensors: Mapping[str, Tensor]) -> None:
    """Put other tensors in the place of a lean run's weights. Raises RunError if they are not finite."""
    (to,) = all_checkpoints(export.checkpoints)
    content = Snapshot(tensors)
    if broken := content.not_finite():
        raise RunError(f"not written: {len(broken)} tensors are not finite, {broken[0]} among them")
    with to.weights.open("wb") as file:
        file.writelines(content.parts())
    to_disk(to.weights)
    described = {path.name: manifest_entry(path) for path in (to.path / "state.json", to.weights)}
    write_text(to.path / "manifest.json", manifest_text(described))
    to_disk(to.path)


def write_config(export: RunFolder, experiment: Experiment) -> None:
    """Put another configuration in the place of a lean run's, and sign it."""
    write_text(export.config, to_yaml(experiment))
    sign(export)


def _copy(source: Path, target: Path, advance: Callable[[int], None]) -> None:
    with source.open("rb") as before, target.open("wb") as after:
        while part := before.read(PART_BYTES):
            after.write(part)
            advance(len(part))
    to_disk(target)


def _made_from(trained: TrainedRun) -> dict[str, Any]:
    """Return what export.json says; an export of an export names the first run."""
    if trained.run.export.is_file():
        before: dict[str, Any] = read_json(trained.run.export)
        return before
    checkpoint = trained.checkpoint
    return {
        "format": FORMAT_VERSION,
        "img2seq": __version__,
        "run": trained.run.name,
        "step": checkpoint.step,
        "valid_loss": checkpoint.valid_loss,
        **({"scores": scores} if (scores := checkpoint.state().get("scores")) else {}),
    }


def compare_lean_run(captioner: Captioner, folder: Path, pictures: Pictures) -> str:
    """Load what was written and return how it was found to be the run's. Raises RunError if it is not."""
    written = Captioner.load(folder, device="cpu")
    before, after = captioner.trained.model.state_dict(), written.trained.model.state_dict()
    different = [
        name for name in before if name not in after or before[name].numpy().tobytes() != after[name].numpy().tobytes()
    ]
    if different or len(before) != len(after):
        raise RunError(f"not exported: read back, the weights are not the run's: {', '.join(different[:3]) or 'more'}")
    names = [str(n) for n in range(len(pictures.pixels))]
    views = [{captioner.input_name: pixels} for pixels in pictures.pixels]
    expected, found = (
        c.caption_views(views, Decoding.of(c.decoding_defaults), names=names) for c in (captioner, written)
    )
    for one, other in zip(expected, found, strict=True):
        if one.tokens != other.tokens:
            raise RunError(
                f"not exported: read back, it captions {shown(other.text)} where the run does {shown(one.text)}"
            )
    equal = (
        f"{counted(len(before), 'tensor')} equal bit for bit, and {counted(len(names), 'caption')} of {pictures.where}"
    )
    return f"{equal}, such as {shown(expected[0].text)}"
