"""What captions: the folder of a run, or of an export."""

from __future__ import annotations

from pathlib import Path

from img2seq.run.hub import local_folder


def is_onnx_export(folder: Path) -> bool:
    """Return whether a folder is an export for ONNX Runtime, whole or damaged."""
    return (folder / "onnx").is_dir() and not (folder / "config.yaml").exists()


def captioning_folder(path: str | Path) -> Path:
    """Return the folder of a run or an export, fetched first where it is on the hub. Raises RunError if there is none."""
    folder = local_folder(path)
    if is_onnx_export(folder):
        return folder
    from img2seq.run.folder import open_run  # with the configuration's schema

    return open_run(folder).path
