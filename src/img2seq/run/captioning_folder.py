"""What captions: the folder of a run, or of an export."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from img2seq.extras import MODEL, require
from img2seq.run.hub import local_folder


def is_onnx_export(folder: Path) -> bool:
    """Return whether a folder is an export for ONNX Runtime, whole or damaged."""
    return (folder / "onnx").is_dir() and not (folder / "config.yaml").exists()


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
