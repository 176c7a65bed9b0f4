"""A folder of pictures with a text file beside each: `x.jpg` and `x.txt` (or `x.caption`), a caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from img2seq.data.csv_rows import decode_text, file_content
from img2seq.data.picture import Picture
from img2seq.data.records import is_image_name
from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, checked_record
from img2seq.data.sources.splits import split_of_path
from img2seq.errors import DataError

ENDINGS = (".txt", ".caption")


def recognise(content: Content) -> bool:
    """Tell whether a text file in a folder, or below it, has the name of a picture beside it."""
    return content.is_folder and any(True for _ in _pairs(content))


def _pairs(content: Content) -> Iterator[tuple[Path, Path]]:
    """Yield (picture, text file) for each picture that has a text file beside it."""
    texts = {path.with_suffix(""): path for path in reversed(content.archives(*ENDINGS))}
    for path in content.archives(""):
        if is_image_name(path.name) and (text := texts.get(path.with_suffix(""))):
            yield path, text


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each picture with a text file."""
    content.title = "pictures with text files"
    used: set[Path] = set()
    for picture, text in _pairs(content):
        used.add(text)
        name = picture.relative_to(content.path).as_posix()
        try:
            lines = decode_text(text, file_content(text)).splitlines()
        except DataError as error:
            problems.append(str(error))
            continue
        captions = [line for line in lines if line.strip()]
        place: Picture = picture
        if not captions:
            problems.append(f"{text.relative_to(content.path)}: expected a caption on each line, found none")
            continue
        record = checked_record(
            "",
            captions,
            str(text.relative_to(content.path)),
            problems,
            picture=place,
            path=name,
            split=split_of_path(name),
        )
        if record is not None:
            yield record
    alone = [
        path for path in content.archives(*ENDINGS) if path not in used and path.parent in {p.parent for p in used}
    ]
    for path in alone:
        if not path.name.lower().startswith(("readme", "license", "licence")):
            problems.append(f"{path.relative_to(content.path)}: no picture has this name")


FORMAT = Format("sidecar", "pictures with text files (x.jpg and x.txt)", recognise, read)
