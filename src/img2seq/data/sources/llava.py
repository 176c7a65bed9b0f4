"""Lists of conversations about pictures, as LLaVA and chat models are trained on: the first answer is the caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from img2seq.data.sources.content import Content
from img2seq.data.sources.entries import image_of, record_of
from img2seq.data.sources.source import Format, Record


def recognise(content: Content) -> bool:
    data = content.json
    entries = [entry for entry in data if isinstance(entry, Mapping)] if isinstance(data, list) else []
    return any("conversations" in entry or "messages" in entry for entry in entries[:100])


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each conversation about a picture; those about none are passed over and counted."""
    content.title = "LLaVA conversations"
    without = 0
    for index, entry in enumerate(content.json):
        if isinstance(entry, Mapping) and image_of(entry, content.options.image_column) is None:
            without += 1
            continue
        record = record_of(content, entry, f"[{index}]", problems, base=content.path.parent)
        if record is not None:
            yield record
    if without:
        content.notes.append(f"{content.path}: {without:,} conversation(s) without a picture are not used")


FORMAT = Format("llava", "LLaVA conversations (JSON, image and conversations in each entry)", recognise, read)
