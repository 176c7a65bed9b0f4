"""The lists that BLIP and LAVIS train on: `[{"image": "a.jpg", "caption": "a dog", "image_id": ...}, ...]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from img2seq.data.sources.content import Content
from img2seq.data.sources.entries import captions_of, image_of, record_of
from img2seq.data.sources.source import Format, Record


def recognise(content: Content) -> bool:
    """Tell whether content is a list of which an entry has a picture and captions by name."""
    data, options = content.json, content.options
    entries = [entry for entry in data if isinstance(entry, Mapping)] if isinstance(data, list) else []
    return any(
        image_of(entry, options.image_column)
        and (captions_of(entry, options.caption_columns) or not content.captions_needed)
        for entry in entries[:100]
    ) and not any("conversations" in entry or "messages" in entry for entry in entries[:100])


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each entry."""
    content.title = "BLIP list"
    for index, entry in enumerate(content.json):
        record = record_of(content, entry, f"[{index}]", problems, base=content.path.parent)
        if record is not None:
            yield record


FORMAT = Format("blip", "a BLIP list (JSON, image and caption in each entry)", recognise, read)
