"""Write a lean run: what captioning and serving need, and nothing of training.

    config.yaml, facts.json, tokenizer.json     the run's own, byte for byte
    digests.json                                their SHA-256
    checkpoints/step-00000123/                  weights.safetensors and state.json of one checkpoint, byte for byte; manifest.json of the two
    export.json                                 what it was made from
    README.txt

It is a run folder, which `build/trained.py` reads as any other. Everything is written into a folder beside it, which is loaded and compared
with the run before it takes its name. A process that is killed leaves at most `.NAME.exporting-PID`, which the next export removes.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from img2seq import __version__
from img2seq.build.trained import TrainedRun
from img2seq.errors import RunError, listed, shown
from img2seq.inference.captioner import Captioner, ImageSource
from img2seq.progress import Announcer, counted
from img2seq.report.run_state import describe_evaluation, folder_size
from img2seq.run.checkpoint import Checkpoint, manifest_text
from img2seq.run.folder import RunFolder, file_digest, open_run, read_json
from img2seq.run.lock import process_start
from img2seq.run.results import check_writable
from img2seq.run.write import to_disk, write_json, write_text

FORMAT_VERSION = 1
README = Path(__file__).with_name("readme.txt")
PART_BYTES = 1 << 24
PICTURES = 8  # captioned with both, the run and its export


def export_run(
    path: str | Path, target: str | Path, *, step: int | None = None, overwrite: bool = False, announce: Announcer
) -> str:
    """Write a run's best checkpoint, or that of a step, as a lean run; return what was written, with the next commands.

    Raises:
        RunError: if the run cannot be loaded, the target holds anything else than an export (or an export, without `overwrite`), or
            cannot be written; or if what was written is not what the run holds.
        ModelError: if it is a run without one image input, which cannot caption.
    """
    run, place = open_run(path), Path(target)
    final = place.absolute()
    _check_target(final, shown_as=place, overwrite=overwrite)
    captioner = Captioner.load(run.path, device="cpu", step=step)
    _remove_leftovers(final, "exporting")
    export = RunFolder(final.with_name(f".{final.name}.exporting-{os.getpid()}"))
    try:
        try:
            _write(captioner.trained, export, announce)
            verified = _compare(captioner, export)
            _check_target(final, shown_as=place, overwrite=overwrite)  # somebody may have written there meanwhile
            _take_name(export.path, final)
        except OSError as error:
            raise RunError(_why_not_written(error, place, captioner.trained)) from error
    except BaseException:
        shutil.rmtree(export.path, ignore_errors=True)
        raise
    return "\n".join([*_summary(run, place, captioner.trained), f"  verified: {verified}", *_next_commands(place)])


def _check_target(final: Path, *, shown_as: Path, overwrite: bool) -> None:
    """Raise RunError where an export may not be written, before anything is loaded."""
    check_writable(final.parent)
    if not os.path.lexists(final):
        return
    if not final.is_dir() or final.is_symlink():
        raise RunError(f"{shown_as}: expected a folder that is empty or not there, found a file")
    if final.samefile(Path.cwd()):
        raise RunError(f"{shown_as}: is the current folder, which cannot be replaced as a whole; name a folder in it")
    if not any(final.iterdir()):
        return
    if not RunFolder(final).export.is_file():
        raise RunError(f"{shown_as}: expected a folder that is empty or not there, found one that is no export")
    if not overwrite:
        raise RunError(f"{shown_as}: is an export already; replace it with --overwrite, or choose another folder")
    if foreign := _foreign_files(final):
        raise RunError(
            f"{shown_as}: holds {counted(len(foreign), 'file')} that no export wrote; move them away:\n{listed(foreign)}"
        )


def _foreign_files(folder: Path) -> list[str]:
    """Return the files of an export's folder that no export writes."""
    run = RunFolder(folder)
    own = {run.readme, run.config, run.facts, run.tokenizer, run.digests, run.export}
    for checkpoint in map(Checkpoint, run.checkpoints.glob("step-*")):
        own |= {checkpoint.path / name for name in ("weights.safetensors", "state.json", "manifest.json")}
    files = sorted(path for path in folder.rglob("*") if path not in own and (path.is_symlink() or not path.is_dir()))
    return [str(path.relative_to(folder)) for path in files]


def _remove_leftovers(final: Path, kind: str) -> None:
    """Remove what processes left beside a target that were killed while they exported to it."""
    for folder in final.parent.glob(f".{glob.escape(final.name)}.{kind}-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdecimal() and process_start(int(pid)) is None:
            shutil.rmtree(folder)


def _write(trained: TrainedRun, export: RunFolder, announce: Announcer) -> None:
    """Write all files of an export, and return when they have reached the disk."""
    run, checkpoint = trained.run, trained.checkpoint
    to = Checkpoint(export.checkpoints / f"step-{checkpoint.step:08d}")
    to.path.mkdir(parents=True)
    files = [run.config, run.facts, run.tokenizer, checkpoint.path / "state.json", checkpoint.weights]
    with announce.bar("exporting", sum(path.stat().st_size for path in files), unit="B") as advance:
        for path in files:
            _copy(path, (to.path if path.parent == checkpoint.path else export.path) / path.name, advance)
    described = read_json(checkpoint.path / "manifest.json")["files"]
    described = {name: entry for name, entry in described.items() if (to.path / name).exists()}
    write_text(to.path / "manifest.json", manifest_text(described))
    write_json(export.digests, {path.name: file_digest(path) for path in export.signed if path.exists()})
    write_text(export.readme, README.read_text(encoding="utf-8"))
    write_json(export.export, _made_from(trained))
    for folder in (to.path, export.checkpoints, export.path):
        to_disk(folder)


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
    scores = checkpoint.state().get("scores")
    return {
        "format": FORMAT_VERSION,
        "img2seq": __version__,
        "run": trained.run.name,
        "step": checkpoint.step,
        "valid_loss": checkpoint.valid_loss,
        **({"scores": scores} if scores else {}),
    }


def _compare(captioner: Captioner, export: RunFolder) -> str:
    """Load what was written and return how it was found to be the run's. Raises RunError if it is not."""
    written = Captioner.load(export.path, device="cpu")
    before, after = captioner.trained.model.state_dict(), written.trained.model.state_dict()
    different = [
        name for name in before if name not in after or before[name].numpy().tobytes() != after[name].numpy().tobytes()
    ]
    if different or len(before) != len(after):
        raise RunError(f"not exported: read back, the weights are not the run's: {', '.join(different[:3]) or 'more'}")
    pictures, where = _pictures(captioner)
    expected, found = captioner.caption(pictures), written.caption(pictures)
    for one, other in zip(expected, found, strict=True):
        if one.tokens != other.tokens:
            raise RunError(
                f"not exported: read back, it captions {shown(other.text)} where the run does {shown(one.text)}"
            )
    equal = f"{counted(len(before), 'tensor')} equal bit for bit, and {counted(len(pictures), 'caption')} of {where}"
    return f"{equal}, such as {shown(expected[0].text)}"


def _pictures(captioner: Captioner) -> tuple[Sequence[ImageSource], str]:
    """Return pictures to caption, and what they are: samples that the run holds as the model saw them, or noise where it holds none."""
    trained = captioner.trained
    samples = trained.run.samples(trained.config.output.name)
    found: list[ImageSource] = []
    for path in sorted(samples.glob(f"*/auto/*_inputs/{glob.escape(captioner.input_name)}.png"))[-PICTURES:]:
        found.append(path)
    if found:
        return found, "the run's samples"
    return [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)], "a picture of noise"


def _take_name(written: Path, final: Path) -> None:
    """Give what was written its name, in place of an earlier export."""
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    if final.exists():
        final.rename(replaced) if any(final.iterdir()) else final.rmdir()
    written.rename(final)
    to_disk(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    _remove_leftovers(final, "replaced")


def _why_not_written(error: OSError, target: Path, trained: TrainedRun) -> str:
    if isinstance(error, FileNotFoundError) and str(error.filename).startswith(str(trained.run.path)):
        return f"{error.filename}: was removed while it was exported; repeat the command"
    needed, free = trained.checkpoint.weights.stat().st_size, shutil.disk_usage(target.absolute().parent).free
    return f"{target}: cannot be written ({error}): about {needed:,} bytes are needed, {free:,} are free"


def _summary(run: RunFolder, target: Path, trained: TrainedRun) -> list[str]:
    return [
        f"{target}: step {trained.checkpoint.step:,} of {run.path}, {describe_evaluation(trained.checkpoint.state())}",
        f"  size: {folder_size(target)}; the run has {folder_size(run.path)}, {folder_size(trained.checkpoint.path)} of it this checkpoint",
    ]


def _next_commands(target: Path) -> list[str]:
    folder = shlex.quote(str(target))
    return ["next:", f"  img2seq caption {folder} PHOTOGRAPHS", f"  img2seq serve {folder}"]
