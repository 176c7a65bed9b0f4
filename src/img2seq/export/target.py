"""The folder that an export is written to: whole or not there, and nothing of a person's is ever replaced.

Everything is written into a folder beside it, which takes its name when it is done. A process that is killed leaves at most
`.NAME.exporting-PID`, which the next export removes.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from img2seq.errors import RunError, listed
from img2seq.export.model_card import files_of_card
from img2seq.progress import counted
from img2seq.run.checkpoint import Checkpoint
from img2seq.run.folder import RunFolder
from img2seq.run.lock import process_start
from img2seq.run.onnx_folder import SUFFIXES, OnnxFolder
from img2seq.run.results import check_writable
from img2seq.run.write import to_disk


@contextmanager
def new_folder(target: Path, *, overwrite: bool, needed: Callable[[], int]) -> Iterator[Path]:
    """Make a folder beside the target, which takes its name if all goes well, and is removed if not.

    Args:
        target: a folder that is empty or not there, or an export to replace.
        overwrite: whether an export may be replaced.
        needed: returns how many bytes will be written, about.

    Raises:
        RunError: if the target holds anything else than an export (or an export, without `overwrite`), or cannot be written.
    """
    final = target.absolute()
    check_target(target, overwrite=overwrite)
    _remove_leftovers(final, "exporting")
    folder = final.with_name(f".{final.name}.exporting-{os.getpid()}")
    try:
        try:
            yield folder
            check_target(target, overwrite=overwrite)  # somebody may have written there meanwhile
            _take_name(folder, final)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not str(error.filename).startswith(str(folder)):
                raise RunError(f"{error.filename}: was removed while it was exported; repeat the command") from error
            free = shutil.disk_usage(final.parent).free
            raise RunError(
                f"{target}: cannot be written ({error}): about {needed():,} bytes are needed, {free:,} are free"
            ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise RunError where an export may not be written, before anything is loaded."""
    final = target.absolute()
    check_writable(final.parent)
    if not os.path.lexists(final):
        return
    if not final.is_dir() or final.is_symlink():
        raise RunError(f"{target}: expected a folder that is empty or not there, found a file")
    if final.samefile(Path.cwd()):
        raise RunError(f"{target}: is the current folder, which cannot be replaced as a whole; name a folder in it")
    if not any(final.iterdir()):
        return
    if not RunFolder(final).export.is_file():
        raise RunError(f"{target}: expected a folder that is empty or not there, found one that is no export")
    if not overwrite:
        raise RunError(f"{target}: is an export already; replace it with --overwrite, or choose another folder")
    if foreign := _foreign_files(final):
        raise RunError(
            f"{target}: holds {counted(len(foreign), 'file')} that no export wrote; move them away:\n{listed(foreign)}"
        )


def _foreign_files(folder: Path) -> list[str]:
    """Return the files of an export's folder that no export writes."""
    run, onnx = RunFolder(folder), OnnxFolder(folder)
    own = {run.readme, run.config, run.facts, run.tokenizer, run.digests, run.export, run.split, run.decoding}
    for checkpoint in map(Checkpoint, run.checkpoints.glob("step-*")):
        own |= {checkpoint.path / name for name in ("weights.safetensors", "state.json", "manifest.json")}
    own |= {onnx.parity, onnx.config, onnx.generation, onnx.preprocessor, onnx.tokenizer_config}
    own |= files_of_card(folder)
    own |= {place(precision) for precision in SUFFIXES for place in (onnx.encoder, onnx.decoder)}
    files = sorted(path for path in folder.rglob("*") if path not in own and (path.is_symlink() or not path.is_dir()))
    return [str(path.relative_to(folder)) for path in files]


def _remove_leftovers(final: Path, kind: str) -> None:
    """Remove what processes left beside a target that were killed while they exported to it."""
    for folder in final.parent.glob(f".{glob.escape(final.name)}.{kind}-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdecimal() and process_start(int(pid)) is None:
            shutil.rmtree(folder)


def _take_name(written: Path, final: Path) -> None:
    """Give what was written its name, in place of an earlier export."""
    replaced = final.with_name(f".{final.name}.replaced-{os.getpid()}")
    if final.exists():
        final.rename(replaced) if any(final.iterdir()) else final.rmdir()
    try:
        written.rename(final)
    except BaseException:
        if replaced.exists():
            replaced.rename(final)
        raise
    to_disk(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    _remove_leftovers(final, "replaced")
