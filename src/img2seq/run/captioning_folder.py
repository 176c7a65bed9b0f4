"""What captions: the folder of a run, or of an export."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from img2seq.extras import MODEL, require
from img2seq.run.hub import is_on_hub, local_folder


def is_onnx_export(folder: Path) -> bool:
    """Return whether a folder is an export for ONNX Runtime, whole or damaged."""
    return (folder / "onnx").is_dir() and not (folder / "config.yaml").exists()


def is_captioning_folder(path: str) -> bool:
    """Return whether a path is that of a run or an export, whole or damaged, or the name of one on the hub."""
    folder = Path(path)
    is_run = (folder / "config.yaml").is_file() and any(
        (folder / name).exists() for name in ("facts.json", "digests.json", "checkpoints")
    )
    return is_run or is_on_hub(path) or is_onnx_export(folder)


def captioning_folder(path: str | PathLike[str]) -> Path:
    """Return the folder of a run or an export, fetched first where it is on the hub.

    Raises:
        RunError: if there is none.
        Img2SeqError: if it is a run, and PyTorch is not installed.
    """
    folder = local_folder(path)
    if is_onnx_export(folder):
        return folder
    from img2seq.run.folder import open_run  # with the configuration's schema

    run = open_run(folder)
    require(f"{path} is a run, which", MODEL, instead="; or export it with --onnx where PyTorch is installed")
    return run.path
