"""The shape in which every format of captions is read: a source gives records, and says which of its rows cannot be used.

A format is a file in this folder with a `FORMAT`, named in `read.FORMATS`. Nothing behind the records knows formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from img2seq.data.picture import Picture
from img2seq.data.sources.content import Content
from img2seq.data.text import clean_caption, clean_name, is_utf8
from img2seq.errors import DataError, listed, shown

# Where the path of a picture does not give the ID, `data convert` writes it beside the path: a key or column of COCO's images, image
# folders, JSON Lines, Parquet, and the JSON in WebDataset. It counts before the path.
KEPT_ID = "img2seq_id"

_NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """Captions of an image. Several records may be about one image.

    Attributes:
        image_id: text that names the image: an ID, or the path of its picture.
        captions: cleaned, none of them empty; none at all where only pictures are asked for.
        picture: where the source itself has it, None where a folder of images has.
        split: the side that the data gives it, as the source writes it; "" for none.
        columns: what else the source says of it.
        path: of the picture as the source writes it, "" where it has an ID alone.
        id_is_path: whether `image_id` is that path; then the shortest part of it that no other image has becomes the ID.
    """

    image_id: str
    captions: tuple[str, ...]
    picture: Picture | None = None
    split: str = ""
    columns: Mapping[str, Any] = field(default_factory=lambda: _NO_COLUMNS)
    path: str = ""
    id_is_path: bool = False


@dataclass(frozen=True)
class Format:
    """A way to keep captions on disk.

    Attributes:
        key: what `output_info.format` calls it.
        name: of the format, with an article, as it is named in messages.
        recognise: tells whether content is of this format, from what it holds and not from its name.
        read: yields records in the order of the file and adds a line to the list for each row that cannot be used.
        id_columns: columns with the source's own ids of an image. Results are written with the first that a record has.
    """

    key: str
    name: str
    recognise: Callable[[Content], bool]
    read: Callable[[Content, list[str]], Iterator[Record]]
    id_columns: tuple[str, ...] = ()


@dataclass
class Source:
    """Captions on disk, of a known format.

    Attributes:
        content: what is read.
        format: of it.
        problems: a line for each row that cannot be used; complete when all records have been read.
    """

    content: Content
    format: Format
    problems: list[str] = field(default_factory=list)

    def records(self) -> Iterator[Record]:
        """Yield the records one by one, in the order of the file.

        Raises:
            DataError: if the content cannot be read at all, or has no record.
        """
        self.problems = []
        record = None
        for record in self.format.read(self.content, self.problems):
            yield record
        if record is None:
            why = f":\n{listed(self.problems)}" if self.problems else ""
            raise DataError(f"{self.content.path}: expected captions, found none in {self.format.name}{why}")

    def own_ids(self, record: Record) -> list[str | int]:
        """Return the ids that the source itself has for a record's image, the one that results are written with first."""
        return [record.columns[name] for name in self.format.id_columns if name in record.columns]


def kept_id(columns: Mapping[str, Any]) -> str:
    """Return the ID that `data convert` wrote beside a picture's path, "" where there is none."""
    own = columns.get(KEPT_ID)
    return own if isinstance(own, str) else ""


def beside(folder: Path, path: str) -> Path:
    """Return where a picture is that a source writes relative to a folder, as any system writes it."""
    return folder / path.strip().replace("\\", "/")


def checked_record(
    image_id: str,
    captions: Sequence[object],
    place: str,
    problems: list[str],
    columns: Mapping[str, Any] = _NO_COLUMNS,
    *,
    picture: Picture | None = None,
    split: object = "",
    path: str | None = None,
) -> Record | None:
    """Return a record of what a format found, by the rules that all formats share; None where nothing can be used.

    Args:
        image_id: as it was written, "" where the path is to make it.
        captions: as they were written; what is no text, empty or not valid Unicode is a problem. None for a picture alone.
        place: in the file.
        problems: to add a line to for each.
        columns: what else is known.
        picture: where the source itself says where it is, or has its bytes.
        split: where the source has one.
        path: of the picture as it was written, None where the source has none.
    """
    id_is_path = not image_id and path is not None
    path = clean_name(path or "").replace("\\", "/").removeprefix("./")  # as Windows and `find` write it
    name = path if id_is_path else clean_name(image_id)
    what = "the path" if id_is_path else "the ID"
    if not (is_utf8(name) and is_utf8(path)):
        problems.append(f"{place}: {what} {shown(name)} is not valid Unicode (a lone surrogate)")
        return None
    if any(char in name + path for char in "\n\r\0"):
        problems.append(f"{place}: {what} has a line break or a zero byte: {shown(name)}")
        return None
    if not name:
        problems.append(f"{place}: {what} is empty")
        return None
    usable = []
    for caption in captions:
        if not isinstance(caption, str):
            problems.append(f"{place}: expected a caption (text), found {shown(caption)}")
            continue
        try:
            text = clean_caption(caption).strip()
        except ValueError as error:
            problems.append(f"{place}: {what[4:]} {shown(name)}: the caption is {error}")
            continue
        if text:
            usable.append(text)
        else:
            problems.append(f"{place}: {what[4:]} {shown(name)}: the caption is empty")
    if captions and not usable:
        return None
    side = split.strip() if isinstance(split, str) else "" if split is None else str(split)
    return Record(name, tuple(usable), picture, side, columns, path, id_is_path)
