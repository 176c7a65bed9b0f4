"""`img2seq caption`: many files in bounded memory, resumable."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec, decode, read_bytes
from img2seq.data.picture import picture_bytes
from img2seq.data.pixels import map_in_threads
from img2seq.errors import DataError, shown
from img2seq.inference.caption_output import CaptionOutput, Key, Layout
from img2seq.inference.caption_paths import STANDARD_INPUT, Listed
from img2seq.inference.captioner import Captioner, Views
from img2seq.inference.predictor import Caption
from img2seq.progress import Announcer

READERS = 2


@dataclass(frozen=True)
class Captioned:
    """What was done: images captioned and failed, rows that were there already, and how long it took."""

    n_captioned: int
    n_failed: int
    n_kept: int
    elapsed_s: float

    def __str__(self) -> str:
        kept = f" ({self.n_kept:,} were there already)" if self.n_kept else ""
        rate = f", {self.n_captioned / self.elapsed_s:.1f} images/s" if self.n_captioned else ""
        return f"{self.n_captioned:,} captioned{kept}, {self.n_failed:,} failed{rate}"


class Gallery(Protocol):
    """A page of pictures and captions, written beside the output."""

    def thumbnail(self, data: bytes, name: str) -> bytes:
        """Return a small picture of an image file's bytes."""

    def add(self, path: str, caption: Caption | None, *, thumbnail: bytes, failure: str) -> None:
        """Write the next image, or why it has no caption."""


@dataclass
class _Image:
    """An image of a batch, and what became of it."""

    path: str
    is_written: bool
    failure: str
    views: Views | None = None
    thumbnail: bytes = b""
    caption: Caption | None = None


def caption_files(
    captioner: Captioner,
    paths: Iterable[str],
    decoding: Decoding,
    output: CaptionOutput,
    *,
    beginning: str = "",
    picture: bytes | None = None,
    gallery: Gallery | None = None,
    announce: Announcer,
) -> Captioned:
    """Caption images into an output.

    A broken image is reported, and in JSON Lines written down, and the rest go on. Images that the output holds already are passed
    over; a batch of which some are new is captioned as a whole, for then captions and their digits are those of an uninterrupted command.

    Args:
        captioner: the model.
        paths: as `expand` gives them; read as they are needed. Of a list, the progress bar knows the end.
        decoding: how to search.
        output: what is written to.
        beginning: of every caption.
        picture: the image file that stands for the path "-".
        gallery: gets every image; then those that the output holds already are captioned again.
        announce: for failures and progress.

    Raises:
        DataError: if the output cannot be continued with these images, or the beginning has unknown words.
    """
    layout, kept, owners = output.layout, output.kept.copy(), dict[Key, str]()
    if kept and isinstance(paths, Sequence) and not any(layout.key(path) in kept for path in paths):
        given = shown(layout.key(paths[0])) if paths else "nothing"
        raise DataError(
            f"{output.path}: cannot go on: none of these images is in it: expected {given}, found {shown(next(iter(kept)))}. "
            "The file is left as it is"
        )
    began, n_captioned, n_failed, waiting = time.monotonic(), 0, output.n_failed, iter(paths)
    with announce.bar("captioning", len(paths) if isinstance(paths, Sequence) else 0) as advance:
        while batch := [_claim(path, layout, kept, owners) for path in islice(waiting, captioner.batch_size)]:
            new = [image for image in batch if not image.is_written]
            _read(new, captioner, picture, gallery)
            if gallery is not None or any(image.views is not None for image in new):
                _read([image for image in batch if image.is_written], captioner, picture, gallery)
                if readable := [image for image in batch if image.views is not None]:
                    _caption(readable, captioner, decoding, beginning)
            for image in new:
                if row := layout.row(image.path, image.caption, image.failure):
                    output.write(row)
                if image.failure:
                    announce.say(f"failed: {image.failure}", level="error")
            if gallery is not None:
                for image in batch:
                    gallery.add(image.path, image.caption, thumbnail=image.thumbnail, failure=image.failure)
            n_failed += sum(bool(image.failure) for image in new)
            n_captioned += sum(image.caption is not None for image in new)
            output.flush()
            advance(len(batch))
    output.finish()
    return Captioned(n_captioned, n_failed, output.kept.total(), time.monotonic() - began)


def _claim(path: str, layout: Layout, kept: Counter[Key], owners: dict[Key, str]) -> _Image:
    """Return an image, and whether the output holds its row: each row counts once, for a path may be given twice."""
    key = layout.key(path)
    if layout.form == "coco":
        if key in owners:
            return _Image(
                path,
                False,
                f"{path}: its image_id {shown(key)} is that of {owners[key]}, too; COCO results have one caption for each",
            )
        owners[key] = path
    if kept[key] > 0:
        kept[key] -= 1
        return _Image(path, True, "")
    return _Image(path, False, layout.unwritable(path))


def _read(images: Sequence[_Image], captioner: Captioner, picture: bytes | None, gallery: Gallery | None) -> None:
    """Fill in pixels and thumbnails, or why there are none. Each file is read once."""

    def read(image: _Image) -> None:
        try:
            data = _bytes_of(image.path, picture, captioner.spec)
            views = {name: decode(data, spec, image.path) for name, spec in captioner.specs.items()}
            image.thumbnail = b"" if gallery is None else gallery.thumbnail(data, image.path)
            image.views = views
        except DataError as error:
            image.failure = str(error)
        except ValueError as error:  # a zero byte, or half a character: no file can have such a name
            image.failure = f"{image.path!a}: cannot be a path: {error}"

    for _ in map_in_threads(read, [image for image in images if not image.failure], READERS):
        pass


def _bytes_of(path: str, picture: bytes | None, spec: ImageSpec) -> bytes:
    if picture is None or path != STANDARD_INPUT:
        return picture_bytes(path.picture, spec) if isinstance(path, Listed) else read_bytes(path, spec)
    if not 0 < len(picture) <= spec.max_bytes:
        raise DataError(f"{path}: expected 1 to {spec.max_bytes:,} bytes (max_bytes), found {len(picture):,}")
    return picture


def _caption(images: Sequence[_Image], captioner: Captioner, decoding: Decoding, beginning: str) -> None:
    views = [image.views for image in images if image.views is not None]
    names = [image.path for image in images]
    captions = captioner.caption_views(views, decoding, beginning=beginning, names=names)
    for image, caption in zip(images, captions, strict=True):
        image.caption = caption
