"""Convert captions and pictures of any format to one of five, so that the target reads as the same data: IDs, captions, sides, bytes.

Everything is looked at before anything is written, as training does. Pictures are then read one at a time and copied as they are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from img2seq.config.outputs import ReadOptions
from img2seq.data.image import decode, opened
from img2seq.data.picture import Picture, picture_bytes
from img2seq.data.pixels import CHUNK, map_in_threads
from img2seq.data.records import Problems
from img2seq.data.sources.content import GUESSED
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.datasets.convert import to_coco, to_csv, to_imagefolder, to_parquet, to_webdataset
from img2seq.datasets.convert.folder import SPEC, Work, check_target, read_marker
from img2seq.datasets.convert.sample import SIDES, Sample, extension_in, names_of
from img2seq.errors import DataError
from img2seq.progress import Announcer, counted

TARGETS: dict[str, ModuleType] = {
    "csv": to_csv, "coco": to_coco, "imagefolder": to_imagefolder, "webdataset": to_webdataset, "parquet": to_parquet,
}  # fmt: skip
VERSION = 1  # part of every plan: raise it when the same data is written in another way
_EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}  # others are those of their names


@dataclass(frozen=True)
class Conversion:
    """What to convert, and to what.

    Attributes:
        source: captions: a file, a folder, or a pattern of shards.
        target: folder to write.
        to: its format, of TARGETS.
        images: folder or shards with the pictures; None for those that the source names or holds, or a folder `images` beside it.
        options: what is said of the captions' format.
        shard_size: samples in a shard of webdataset and parquet.
        on_bad_data: `error` lists what cannot be used and writes nothing, `skip` leaves it out.
        overwrite: replace what an earlier conversion wrote.
        workers: threads that look at pictures.
    """

    source: str
    target: Path
    to: str
    images: str | None = None
    options: ReadOptions = GUESSED
    shard_size: int = 1000
    on_bad_data: Literal["error", "skip"] = "error"
    overwrite: bool = False
    workers: int = 2


def convert(conversion: Conversion, announce: Announcer) -> str:
    """Convert a data set and return what was written, with the next command. The same call continues one that was interrupted.

    Raises:
        DataError: for a source that cannot be read, captions and pictures that cannot be used (all in one message, before anything
            is written), IDs that the target cannot hold, and a target that holds anything else.
    """
    target, form = Path(conversion.target).absolute(), TARGETS[conversion.to]
    if read_marker(target) is None:
        check_target(target)
    found = read_captions(conversion.source, conversion.options)
    for line in (found.summary, *found.notes):
        announce.say(line)
    problems = Problems()
    problems.add(f"row(s) of {conversion.source} cannot be used", found.problems)
    where = conversion.images or _images_of(conversion.source, found)
    pictures, notes = match_images(found, found.captions, where, "images", problems, conversion.source)
    for line in notes:
        announce.say(line)
    guessed = {image_id: extension_in(picture.name) or ".jpeg" for image_id, picture in pictures.items()}
    form.check(*_samples(found, pictures, guessed))  # before every picture is read
    work = Work(target, _plan(conversion, found, pictures, problems))
    marker = read_marker(target)
    if marker is not None and marker["plan"] == work.plan and not conversion.overwrite:
        check_target(target)
        return f"{conversion.target}: has been written already, from the same data\n{_next(conversion)}"
    check_target(target, overwrite=conversion.overwrite)
    before = work.marker()
    if before is None:
        extensions = _check_pictures(pictures, problems, announce, conversion.workers)
        report = _settled(problems, conversion.on_bad_data)
    else:
        announce.say(f"{conversion.target}: continues a conversion of the same data that was interrupted")
        extensions, report = before["extensions"], before["report"]
    if report:
        announce.say(report)
    samples, name_problems = _samples(found, pictures, extensions)
    if not samples:
        raise DataError(f"{conversion.source}: no image can be used")
    form.check(samples, name_problems)
    work.begin({"extensions": extensions, "report": report})
    with announce.bar(f"writing {conversion.to}", len(samples)) as work.advance:
        form.write(samples, work, conversion.shard_size)
    files = work.finish(overwrite=conversion.overwrite)["files"]
    return f"{_summary(conversion, samples, len(files))}\n{_next(conversion)}"


def _images_of(source: str, found: CaptionsFound) -> str:
    """Return where the pictures are when that is not said: the source itself, or a folder `images` beside it or beside its folder."""
    if any(not isinstance(picture, Path) or picture.exists() for picture in found.pictures.values()):
        return source
    folder = Path(source).parent
    beside = next((path for path in (folder / "images", folder.parent / "images") if path.is_dir()), None)
    if beside is None:
        raise DataError(f"{source}: where its pictures are is not known; name the folder with --images DIR")
    return str(beside)


def _samples(
    found: CaptionsFound, pictures: Mapping[str, Picture], extensions: Mapping[str, str]
) -> tuple[list[Sample], dict[str, str]]:
    """Return the images with an extension in the order of the source, and why an ID cannot be a file's name, by ID."""
    extensions = {image_id: extensions[image_id] for image_id in found.captions if image_id in extensions}
    names, problems = names_of(extensions)
    sides = {image_id: SIDES[side] for image_id, side in found.splits.items()}
    samples = []
    for image_id, name in zip(extensions, names, strict=True):
        own = [number for number in found.own_ids.get(image_id, ()) if isinstance(number, int)]
        captions = tuple(found.captions[image_id])
        side, number = sides.get(image_id, ""), own[0] if own else None
        samples.append(Sample(image_id, name, captions, side, number, pictures[image_id]))
    return samples, problems


def _plan(conversion: Conversion, found: CaptionsFound, pictures: Mapping[str, Picture], problems: Problems) -> str:
    """Return a digest of all that decides what is written. Of a picture its place, size and time of change count, not its bytes."""
    digest = hashlib.sha256()
    states: dict[Path, list[int]] = {}

    def add(*values: object) -> None:
        digest.update(json.dumps(values).encode() + b"\n")

    add(VERSION, conversion.to, conversion.shard_size, conversion.on_bad_data, problems.by_kind)
    sides = found.splits
    for image_id, captions in found.captions.items():
        place: list[object] = []
        if (picture := pictures.get(image_id)) is not None:
            path, in_archive = (picture, ()) if isinstance(picture, Path) else (picture.archive, picture.place)
            if not in_archive or path not in states:
                states[path] = [state.st_size, state.st_mtime_ns] if (state := _state(path)) else []
            place = [picture.name, states[path], in_archive]
        add(image_id, captions, sides.get(image_id), found.own_ids.get(image_id), place)
    return digest.hexdigest()


def _check_pictures(
    pictures: Mapping[str, Picture], problems: Problems, announce: Announcer, workers: int
) -> dict[str, str]:
    """Decode every picture, and return the extension of each that is whole: that of its name, else that of its own format."""

    def look(image_id: str) -> str | DataError:
        picture = pictures[image_id]
        try:
            data = picture_bytes(picture, SPEC)
            decode(data, SPEC, str(picture))
            if found := extension_in(picture.name):
                return found
            with opened(data, str(picture)) as image:
                return _EXTENSIONS.get(str(image.format), f".{str(image.format).lower()}")
        except DataError as error:
            return error

    extensions: dict[str, str] = {}
    broken: list[str] = []
    ids = iter(pictures)
    with announce.bar("checking images", len(pictures)) as advance:
        while chunk := list(itertools.islice(ids, CHUNK)):
            for image_id, result in zip(chunk, map_in_threads(look, chunk, workers), strict=True):
                if isinstance(result, DataError):
                    broken.append(str(result))
                else:
                    extensions[image_id] = result
            advance(len(chunk))
    problems.add("image(s) cannot be used", broken)
    return extensions


def _settled(problems: Problems, policy: str) -> str:
    """Return what is left out, "" for nothing. Raises DataError with all of it, unless it may be left out."""
    if problems and policy == "error":
        raise DataError(
            f"{problems.text()}\nNothing was written. Correct the data, or leave these out with --on-bad-data skip"
        )
    return f"left out (--on-bad-data skip):\n{problems.text()}" if problems else ""


def _summary(conversion: Conversion, samples: Sequence[Sample], n_files: int) -> str:
    """Return what was written: `out: parquet with 50 train, 20 validation images, 350 captions, in 2 files`."""
    captions = counted(sum(len(sample.captions) for sample in samples), "caption")
    sides = Counter(sample.side for sample in samples)
    images = counted(len(samples), "image")
    if set(sides) != {""}:
        parts = [f"{sides[side]:,} {side or 'in no split'}" for side in (*SIDES.values(), "") if sides[side]]
        images += f" ({', '.join(parts)})"
    return f"{conversion.target}: {conversion.to} with {images}, {captions}, in {counted(n_files, 'file')}"


def _next(conversion: Conversion) -> str:
    """Return the commands that use what was written."""
    where = [str(Path(conversion.target, part)) for part in TARGETS[conversion.to].NEXT]
    captions, images = shlex.quote(where[0]), shlex.quote(where[-1])
    check, init = (" ".join(dict.fromkeys(paths)) for paths in ((captions, images), (images, captions)))
    return f"next:\n  img2seq data check {check}\n  img2seq init {init}"


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
