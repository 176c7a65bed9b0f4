"""The shape in which every format of captions is read: a source gives records, and says which of its rows cannot be used.

A format is a file in this folder with a `FORMAT`, named in `read.FORMATS`. Nothing behind the records knows formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from img2seq.data.sources.content import Content
from img2seq.data.text import clean_caption, clean_name, is_utf8
from img2seq.errors import DataError, listed, shown

_NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """Captions of an image. Several records may be about one image.

    Attributes:
        image_id: text that names the picture, as an ID or a file name.
        captions: cleaned, none of them empty.
        picture: a path or the bytes of the file, None where a folder of images has it.
        split: the side that the data gives it, if any.
        columns: what else the source says of it.
    """

    image_id: str
    captions: tuple[str, ...]
    picture: Path | bytes | None = None
    split: str | None = None
    columns: Mapping[str, Any] = field(default_factory=lambda: _NO_COLUMNS)


@dataclass(frozen=True)
class Format:
    """A way to keep captions on disk.

    Attributes:
        name: of the format, with an article, as it is named in messages.
        recognise: tells whether content is of this format, from what it holds and not from its name.
        read: yields records in the order of the file and adds a line to the list for each row that cannot be used.
        id_column: the column with the source's own id of an image, which results are written with; "" where it is `image_id`.
    """

    name: str
    recognise: Callable[[Content], bool]
    read: Callable[[Content, list[str]], Iterator[Record]]
    id_column: str = ""


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

    def own_id(self, record: Record) -> str | int:
        """Return the id that the source itself has for a record's image."""
        own: str | int = record.columns[self.format.id_column] if self.format.id_column else record.image_id
        return own


def checked_record(
    image_id: str,
    captions: Sequence[object],
    place: str,
    problems: list[str],
    columns: Mapping[str, Any] = _NO_COLUMNS,
    *,
    picture: Path | bytes | None = None,
    split: str | None = None,
) -> Record | None:
    """Return a record of what a format found, by the rules that all formats share; None where nothing can be used.

    Args:
        image_id: as it was written.
        captions: as they were written; what is no text, empty or not valid Unicode is a problem.
        place: in the file.
        problems: to add a line to for each.
        columns: what else is known.
        picture: where the source itself says where it is, or has its bytes.
        split: where the source has one.
    """
    name = clean_name(image_id)
    if not is_utf8(name):
        problems.append(f"{place}: the ID {shown(name)} is not valid Unicode (a lone surrogate)")
        return None
    if "\n" in name or "\r" in name:
        problems.append(f"{place}: the ID has a line break: {shown(name)}")
        return None
    if not name:
        problems.append(f"{place}: the ID is empty")
        return None
    usable = []
    for caption in captions:
        if not isinstance(caption, str):
            problems.append(f"{place}: expected a caption (text), found {shown(caption)}")
            continue
        try:
            text = clean_caption(caption).strip()
        except ValueError as error:
            problems.append(f"{place}: ID {shown(name)}: the caption is {error}")
            continue
        if text:
            usable.append(text)
        else:
            problems.append(f"{place}: ID {shown(name)}: the caption is empty")
    return Record(name, tuple(usable), picture, split, columns) if usable else None
