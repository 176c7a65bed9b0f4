"""Fill the pixel cache: read, decode and resize each image file once, ever."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from img2seq.config.inputs import MAX_PIXELS
from img2seq.data.image import ImageSpec, Pixels, decode
from img2seq.data.picture import Picture, picture_bytes, picture_state
from img2seq.data.row_store import FileState, RowStore, content_key
from img2seq.errors import DataError

CHUNK = 256  # images decoded between two commits to the cache

Progress = Callable[[int], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PixelTable:
    """Where each image's pixels are in the store, and why the others have none."""

    store: RowStore
    row_of: dict[str, int]
    content_of: dict[str, str]
    problems: dict[str, str]

    def value_counts(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return (channels, 256): how often each value occurs in these images. Counted once, and kept beside the pixels."""
        contents = "".join(sorted(self.content_of[image_id] for image_id in image_ids))
        path = self.store.folder / f"counts-{hashlib.sha256(contents.encode()).hexdigest()[:32]}.npy"
        height, width, channels = self.store.shape
        with contextlib.suppress(OSError, EOFError, ValueError):  # none yet, or damaged: they are counted anew
            kept: NDArray[np.int64] = np.load(path, allow_pickle=False)
            if kept.shape == (channels, 256) and (kept.sum(1) == len(image_ids) * height * width).all():
                return kept
        pixels, rows = self.store.map(), np.sort([self.row_of[image_id] for image_id in image_ids])
        counts = np.zeros((channels, 256), dtype=np.int64)
        for chunk in np.array_split(rows, max(1, len(rows) // 256)):
            part = pixels[chunk]
            counts += np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in range(channels)])
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            np.save(temporary, counts)
            temporary.replace(path)  # whole or not there
        except OSError:
            temporary.unlink(missing_ok=True)  # what cannot be kept is counted again
        return counts


class _Read(NamedTuple):
    """A file that was read: its pixels where the store has none of its content, its state where it stood still meanwhile."""

    content: str
    pixels: Pixels | None
    state: FileState | None


def cache_pixels(
    files: Mapping[str, Picture], spec: ImageSpec, cache_folder: Path, *, workers: int, progress: Progress | None = None
) -> PixelTable:
    """Decode every picture that the cache does not hold yet, and return where each image's pixels are.

    Pillow decodes outside Python's interpreter lock, so `workers` threads decode side by side.
    """
    # A picture that is too large for this input may be whole in the cache of another.
    limit = "" if spec.max_pixels == MAX_PIXELS else f"-max{spec.max_pixels}"
    store = RowStore(cache_folder / f"pixels-{spec.key}{limit}", spec.stored_shape, np.uint8)
    ids, problems = list(files), {}
    known = dict(zip(ids, store.contents_of([picture_state(files[i]) for i in ids]), strict=True))
    rows = store.rows_of([content or "" for content in known.values()])
    content_of = {i: content for (i, content), row in zip(known.items(), rows, strict=True) if content and row >= 0}
    if progress:
        progress(len(content_of))
    unread = [i for i in ids if i not in content_of]
    stored = store.contents() if unread else set()

    def read(image_id: str) -> _Read | DataError:
        path = files[image_id]
        try:
            before = picture_state(path)
            data = picture_bytes(path, spec)
            content = content_key(data)
            pixels = None if content in stored else decode(data, spec, str(path))
        except DataError as error:
            return error
        return _Read(content, pixels, before if before == picture_state(path) else None)

    for start in range(0, len(unread), CHUNK):
        chunk = unread[start : start + CHUNK]
        fresh: dict[str, NDArray[np.generic]] = {}
        seen: dict[FileState, str] = {}
        for image_id, found in zip(chunk, map_in_threads(read, chunk, workers), strict=True):
            if isinstance(found, DataError):
                problems[image_id] = str(found)
                continue
            content_of[image_id] = found.content
            if found.pixels is not None:
                fresh[found.content] = found.pixels
            if found.state is not None:
                seen[found.state] = found.content
        store.add(fresh)
        store.remember(seen)
        if progress:
            progress(len(chunk))
    ordered = list(content_of)
    row_of = dict(zip(ordered, store.rows_of([content_of[i] for i in ordered]).tolist(), strict=True))
    return PixelTable(store, row_of, content_of, problems)


def map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int) -> Iterator[_Result]:
    """Map in order, in line where `workers` is below 2."""
    if workers < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)
