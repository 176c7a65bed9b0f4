"""A folder of pictures with a text file beside each: `x.jpg` and `x.txt` (or `x.caption`), a caption a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from img2seq.data.csv_rows import decode_text, file_content
from img2seq.data.records import is_image_name
from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, checked_record
from img2seq.data.sources.splits import split_of_path
from img2seq.errors import DataError

ENDINGS = (".txt", ".caption")


def recognise(content: Content) -> bool:
    """Tell whether a text file in a folder, or below it, has the name of a picture beside it."""
    return content.is_folder and any(True for _ in _pairs(content))


def _pairs(content: Content) -> Iterator[tuple[Path, list[Path]]]:
    """Yield (picture, text files) for each picture that has text files beside it."""
    texts: dict[Path, list[Path]] = {}
    for path in content.archives(*ENDINGS):
        texts.setdefault(path.with_suffix(""), []).append(path)
    for path in content.archives(""):
        if is_image_name(path.name) and (of_picture := texts.get(path.with_suffix(""))):
            yield path, of_picture


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each picture with a text file."""
    content.title = "pictures with text files"
    used: set[Path] = set()
    for picture, texts in _pairs(content):
        used.update(texts)
        name = picture.relative_to(content.path).as_posix()
        where = ", ".join(str(text.relative_to(content.path)) for text in texts)
        try:
            lines = [line for text in texts for line in decode_text(text, file_content(text)).splitlines()]
        except DataError as error:
            problems.append(str(error))
            continue
        captions = [line for line in lines if line.strip()]
        if not captions:
            problems.append(f"{where}: expected a caption on each line, found none")
            continue
        record = checked_record("", captions, where, problems, picture=picture, path=name, split=split_of_path(name))
        if record is not None:
            yield record
    folders = {path.parent for path in used}
    for path in content.archives(*ENDINGS):
        is_about_the_folder = path.name.lower().startswith(("readme", "license", "licence"))
        if path not in used and path.parent in folders and not is_about_the_folder:
            problems.append(f"{path.relative_to(content.path)}: no picture has this name")


FORMAT = Format("sidecar", "pictures with text files (x.jpg and x.txt)", recognise, read)
