"""Flickr8k's and Flickr30k's token files: `name.jpg#0<TAB>caption`, with the split in lists of file names beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, beside, checked_record
from img2seq.data.sources.table import table_text
from img2seq.data.text import clean_name
from img2seq.errors import shown

_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*)")
_LIST = re.compile(r"(?:^|[._-])(train|dev|val|test)_?images\.txt$", re.IGNORECASE)  # Flickr_8k.trainImages.txt


def recognise(content: Content) -> bool:
    if content.is_folder or len(content.files) != 1 or content.binary_kind:
        return False
    first = content.head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    return _LINE.match(first.decode("utf-8", "replace")) is not None


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each line."""
    content.title = "Flickr tokens"
    split_of = _splits(content, problems)
    for number, line in enumerate(table_text(content).splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.match(line)
        if found is None:
            problems.append(f"line {number}: expected name.jpg#0, a tab and a caption, found {shown(line)}")
            continue
        name, _, caption = found.groups()
        picture = beside(content.path.parent, name)
        split = split_of.get(clean_name(name), "")
        record = checked_record("", [caption], f"line {number}", problems, path=name, picture=picture, split=split)
        if record is not None:
            yield record


def _splits(content: Content, problems: list[str]) -> dict[str, str]:
    """Return the side of each file name that a list beside the file holds."""
    split_of: dict[str, str] = {}
    for path in sorted(content.path.absolute().parent.glob("*.txt")):
        if (found := _LIST.search(path.name)) and path.is_file():
            content.notes.append(f"{path.name}: read as the images of {found[1].lower()}")
            for name in _names(path):
                side = split_of.setdefault(name, found[1].lower())
                if side != found[1].lower():
                    problems.append(f"{path.name}: {shown(name)} stands in the list of {side}, too")
    return split_of


def _names(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [clean_name(line) for line in lines if line.strip()]


FORMAT = Format("flickr", "Flickr tokens (name.jpg#0, a tab, a caption)", recognise, read)
