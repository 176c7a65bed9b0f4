"""Folders of results, such as an evaluation or a comparison: results of other inputs are never replaced unasked."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from img2seq.errors import RunError, shown
from img2seq.run.folder import file_digest, read_json

MADE_FROM = "made_from"  # key of the first file of a result


def check_results_folder(folder: Path, files: Sequence[str], made_from: Mapping[str, Any], *, overwrite: bool) -> None:
    """Raise RunError where a command may not write its results, before it begins to work.

    The same command may write them again, for it writes the same. Results of other settings, of inputs that have changed since
    and files of other origin are replaced only where that is asked for.

    Args:
        folder: of the results; it need not exist.
        files: names of the results; the first is JSON with the key MADE_FROM.
        made_from: settings and digests of inputs that decide the results, as plain JSON data.
        overwrite: replace what is there.
    """
    check_writable(folder)
    present = [name for name in files if (folder / name).exists()]
    if overwrite or not present:
        return
    before = _made_from(folder / files[0])
    if before != json.loads(json.dumps(made_from)):
        raise RunError(
            f"{folder / present[0]}: exists already, {_differences(before, made_from)}; "
            "replace it with --overwrite, or choose another folder with --output"
        )


def check_writable(folder: Path) -> None:
    """Raise RunError where files cannot be written into a folder, which need not exist. Leaves nothing behind."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = "not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise RunError(f"{folder}: cannot be written: {why}") from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def digests(paths: Iterable[Path]) -> list[str | None]:
    """Return the SHA-256 of each file, None for one that does not exist."""
    return [file_digest(path) if path.is_file() else None for path in paths]


def digests_by_name(files: Mapping[str, Path]) -> dict[str, str | None]:
    """Return the SHA-256 of each file as `<name>_sha256`, the form in which `made_from` keeps it."""
    return {f"{name}_sha256": digest for name, digest in zip(files, digests(files.values()), strict=True)}


def _made_from(path: Path) -> dict[str, Any]:
    with contextlib.suppress(RunError):
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get(MADE_FROM), dict):
            found: dict[str, Any] = content[MADE_FROM]
            return found
    return {}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how earlier results differ, in a few words: `made with beam_size 5, now 3`."""
    if not before:
        return "not known what from"
    words = []
    for name, value in now.items():
        if before.get(name) != value:
            is_digest = name.endswith("_sha256")
            change = "has changed" if is_digest else f"{shown(before.get(name))}, now {shown(value)}"
            words.append(f"{name.removesuffix('_sha256')} {change}")
    return f"made from other inputs ({'; '.join(words[:4]) or 'fewer'})"
