"""Lists of captions: a JSON object with a list for each image's id, `{"1": ["a dog", "a brown dog"]}`."""

from __future__ import annotations

from collections.abc import Iterator

from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, checked_record
from img2seq.errors import shown


def recognise(content: Content) -> bool:
    """Tell whether content is an object of which some value is a list of captions, or which has texts in place of lists."""
    data = content.json
    if not isinstance(data, dict) or not data:
        return False
    return any(_of_texts(value) for value in data.values()) or all(
        value == [] or isinstance(value, str) for value in data.values()
    )


def _of_texts(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) for item in value)


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each id."""
    content.title = "lists of captions"
    for image_id, captions in content.json.items():
        place = f"image {image_id if len(image_id) < 100 else shown(image_id)}"
        if not isinstance(captions, list) or not captions:
            problems.append(f"{place}: expected a list of captions, found {shown(captions)}")
            continue
        record = checked_record(image_id, captions, place, problems)
        if record is not None:
            yield record


FORMAT = Format("lists", "lists of captions (JSON, id -> list)", recognise, read)
