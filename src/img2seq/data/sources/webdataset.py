"""WebDataset: tar shards whose members of one sample share the name up to the first dot, and follow one another.

Only the headers of a shard are read at first; a picture is read when it is asked for, from its place in the file.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from img2seq.data.picture import Member, Place
from img2seq.data.records import is_image_name
from img2seq.data.sources.content import Content, first_among
from img2seq.data.sources.entries import captions_of
from img2seq.data.sources.source import Format, Record, checked_record, kept_id
from img2seq.data.sources.splits import split_of_shard
from img2seq.data.sources.table import SPLIT_NAMES
from img2seq.errors import DataError, shown
from img2seq.files import regular

MOST_TEXT = 1_000_000  # bytes of a member with captions
_TEXTS = ("json", "txt", "caption", "cls")


def recognise(content: Content) -> bool:
    if content.is_folder:
        return bool(content.archives(".tar"))
    if content.files and content.files[0].name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise DataError(
            f"{content.files[0]}: expected a tar file that is not compressed, for pictures are read from their places in it; unpack it with gunzip or the like"
        )
    return content.head[257:262] == b"ustar" or (bool(content.files) and content.files[0].suffix.lower() == ".tar")


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each sample with a picture and a caption, shards in the order of their names."""
    shards = content.archives(".tar") if content.is_folder else content.files
    content.title = "WebDataset" if len(shards) == 1 else f"WebDataset in {len(shards):,} shards"
    for shard in shards:
        below = shard.relative_to(content.path).as_posix() if content.is_folder else shard.name
        side = split_of_shard(below)
        for key, members in _samples(shard):
            record = _record(content, shard, key, members, side, problems)
            if record is not None:
                yield record


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield (key, members by extension) of each sample. Raises DataError where the shard is cut or is none."""
    key, members, n = "", dict[str, tarfile.TarInfo](), 0
    try:
        with tarfile.open(regular(shard), "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would remember all of them
                if not member.isfile() or Path(member.name).name.startswith("."):
                    continue
                n += 1
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                found = f"{folder}{slash}{stem}"
                if found != key and members:
                    yield key, members
                    members = {}
                key = found
                members[extension.lower()] = member
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard}: cannot be read as a tar file after {n:,} members: {error}; is it cut?") from error
    if members:
        last = max(members.values(), key=lambda member: member.offset_data)
        end = last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if shard.stat().st_size <= end:  # two empty blocks mark the end of a whole one
            raise DataError(f"{shard}: is cut: nothing marks its end after {last.name}, member {n:,}")
        yield key, members


def _record(
    content: Content, shard: Path, key: str, members: dict[str, tarfile.TarInfo], side: str, problems: list[str]
) -> Record | None:
    place = f"{shard.name}, {key}"
    image = next((member for extension, member in members.items() if is_image_name(f"x.{extension}")), None)
    if image is None:
        problems.append(f"{place}: expected a picture, found {shown([member.name for member in members.values()])}")
        return None
    texts: list[Any] = []
    columns: dict[str, Any] = {}
    for kind in _TEXTS:
        if kind not in members or texts:
            continue
        data = _read(shard, (members[kind].offset_data, min(members[kind].size, MOST_TEXT)))
        try:
            if kind == "json":
                columns = json.loads(data)
                columns = columns if isinstance(columns, dict) else {}
                texts = [text for text in captions_of(columns, content.options.caption_columns) or [] if text]
            else:
                texts = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            problems.append(f"{place}: {members[kind].name} cannot be read: {error}")
            return None
    if not texts and content.captions_needed:
        problems.append(
            f"{place}: expected a caption ({', '.join(f'.{kind}' for kind in _TEXTS)}), found {shown([member.name for member in members.values()])}"
        )
        return None
    split = first_among(list(columns), SPLIT_NAMES)
    picture = Member(shard, image.name, (image.offset_data, image.size), _read)
    return checked_record(
        kept_id(columns),
        texts,
        place,
        problems,
        picture=picture,
        path=key,
        split=columns.get(split, side) if split else side,
    )


def _read(archive: Path, place: Place) -> bytes:
    offset, size = place
    with archive.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise DataError(f"{archive}: is cut: expected {size:,} bytes at {offset:,}, found {len(data):,}")
    return data


FORMAT = Format("webdataset", "WebDataset (tar shards with pictures and captions)", recognise, read)
