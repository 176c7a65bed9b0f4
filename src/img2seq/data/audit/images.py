"""Look at every image of a folder: what it is, whether it decodes in full, and which are the same picture."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from img2seq.data.audit.findings import Audit, counts, spread
from img2seq.data.image import ImageSpec, decode, opened
from img2seq.data.picture import Picture, picture_bytes
from img2seq.data.pixels import CHUNK, map_in_threads
from img2seq.data.records import FoundImages, match_pictures
from img2seq.data.row_store import content_key
from img2seq.data.split import equal_images
from img2seq.errors import DataError
from img2seq.progress import Announcer

SMALLEST_SIDE = 16  # pixels
NARROWEST = 10  # times as long as wide


@dataclass(frozen=True)
class _Header:
    """What an image file says of itself: its format, Pillow's mode, and its sides in pixels before it is turned upright."""

    format: str
    mode: str
    width: int
    height: int


@dataclass(frozen=True)
class _Looked:
    image_id: str
    n_bytes: int
    content: str
    header: _Header | None
    problem: str


def _look(image_id: str, path: Picture, spec: ImageSpec) -> _Looked:
    content, header, n_bytes = "", None, 0
    try:
        data = picture_bytes(path, spec)
        n_bytes, content = len(data), content_key(data)
        with opened(data, str(path)) as image:
            header = _Header(str(image.format), image.mode, *image.size)
        decode(data, spec, str(path))
    except DataError as error:
        return _Looked(image_id, n_bytes, content, header, str(error))
    return _Looked(image_id, n_bytes, content, header, "")


def _look_at_all(files: Mapping[str, Picture], spec: ImageSpec, workers: int) -> Iterator[_Looked]:
    ids = iter(files)
    while chunk := list(itertools.islice(ids, CHUNK)):
        yield from map_in_threads(lambda image_id: _look(image_id, files[image_id], spec), chunk, workers)


def check_images(
    name: str, places: Sequence[FoundImages], spec: ImageSpec, captioned: Collection[str], paths: Mapping[str, str], audit: Audit,
    *, announce: Announcer, workers: int,
) -> dict[str, str]:  # fmt: skip
    """Return the content of each image that can be used, by ID.

    Args:
        name: of the input.
        places: where its images are, all together.
        spec: how they become pixels.
        captioned: IDs with captions; empty where there are none to compare with.
        paths: of pictures as the captions write them, by ID.
        audit: to add findings to.
        announce: for progress.
        workers: threads that decode.
    """
    pictures: dict[str, Picture] = {}
    for found in places:
        clashes = [f"{i}: {pictures[i]} and {picture}" for i, picture in found.pictures.items() if i in pictures]
        audit.add("error", "id-clash", f"ID(s) in {found.where} are claimed by two files", found.clashes + clashes)
        audit.add("error", "refused-file", f"file(s) in {found.where} are not read", found.refused)
        unread = filter(None, found.unread.split(", "))
        audit.add("warning", "unread-picture", f"kind(s) of pictures in {found.where} are not read", unread)
        pictures = {**found.pictures, **pictures}
    matched = match_pictures(captioned, paths, pictures)
    files = {**matched.pictures, **matched.unused}
    where = ", ".join(found.where for found in places)
    contents: dict[str, str] = {}
    headers: dict[str, _Header] = {}
    broken: dict[bool, list[str]] = {True: [], False: []}
    n_bytes = 0
    with announce.bar(f"checking {name}", len(files)) as advance:
        for looked in _look_at_all(files, spec, workers):
            n_bytes += looked.n_bytes
            if looked.header is not None:
                headers[looked.image_id] = looked.header
            if looked.problem:
                broken[not captioned or looked.image_id in captioned].append(looked.problem)
            else:
                contents[looked.image_id] = looked.content
            advance(1)
    n_captioned = sum(not captioned or i in captioned for i in files)
    if audit.max_broken_share is not None and len(broken[True]) > audit.max_broken_share * n_captioned:
        too_many = f"of {n_captioned:,} image(s) in {where} cannot be used, more than max_broken_share ({audit.max_broken_share:g}) lets training leave out"
        audit.add("error", "too-many-broken", too_many, broken[True])
    else:
        audit.add("error", "broken-image", f"image(s) in {where} cannot be used", broken[True])
    audit.add("warning", "broken-image-unused", f"image(s) without a caption in {where} cannot be used", broken[False])
    audit.add("error", "missing-image", f"ID(s) with captions have no image in {where}", list(matched.missing.values()))
    audit.add(
        "warning",
        "duplicate-image",
        f"picture(s) in {where} stand there under several IDs",
        [", ".join(ids) for ids in equal_images(contents, contents).values() if len(ids) > 1],
    )
    odd = [
        f"{files[i]}: {h.width} x {h.height}"
        for i, h in headers.items()
        if min(h.width, h.height) < SMALLEST_SIDE or max(h.width, h.height) > NARROWEST * min(h.width, h.height)
    ]
    audit.add(
        "warning",
        "odd-shape",
        f"image(s) have a side below {SMALLEST_SIDE} pixels, or above {NARROWEST} times the other",
        odd,
    )
    audit.figures.setdefault("images", {})[name] = {
        "folders": [found.where for found in places],
        "files": len(files),
        "usable": len(contents),
        "without_caption": sum(i not in captioned for i in files) if captioned else None,
        "bytes": n_bytes,
        "formats": counts(h.format for h in headers.values()),
        "modes": counts(h.mode for h in headers.values()),
        "width": spread([h.width for h in headers.values()]),
        "height": spread([h.height for h in headers.values()]),
    }
    return contents
