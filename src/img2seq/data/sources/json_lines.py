"""JSON Lines: an object on each line, with an image and its captions."""

from __future__ import annotations

import json
from collections.abc import Iterator

from img2seq.data.sources.content import Content
from img2seq.data.sources.entries import record_of
from img2seq.data.sources.source import Format, Record
from img2seq.data.sources.table import table_text
from img2seq.errors import shown


def recognise(content: Content) -> bool:
    return len(content.files) == 1 and not content.binary_kind and content.has_json_lines


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each line."""
    content.title = "JSON Lines"
    for number, line in enumerate(table_text(content).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(
                f"line {number}: expected a JSON object: {getattr(error, 'msg', error)}; found {shown(line)}"
            )
            continue
        record = record_of(content, entry, f"line {number}", problems, base=content.path.parent)
        if record is not None:
            yield record


FORMAT = Format("jsonl", "JSON Lines (an object with image and caption on each line)", recognise, read)
