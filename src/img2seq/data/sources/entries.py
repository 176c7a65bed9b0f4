"""What one JSON object says of an image, in the shapes that JSON Lines, BLIP, LLaVA and chat messages have.

{"image": "a.jpg", "caption": "a dog"}              captions may be a list, the picture file_name, filename, path ...
{"image": "a.jpg", "conversations": [...]}          LLaVA: the first answer is the caption
{"messages": [{"role": "user", "content": [...]}]}  chat: the first answer, and the picture that the question shows
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from img2seq.data.picture import Picture
from img2seq.data.sources.content import Content, first_among
from img2seq.data.sources.source import Record, beside, checked_record, kept_id
from img2seq.data.sources.table import ID_NAMES, IMAGE_NAMES, SPLIT_NAMES, caption_places
from img2seq.errors import shown

OF_ASSISTANT = {"gpt", "assistant", "model", "bot"}


def record_of(
    content: Content, entry: object, place: str, problems: list[str], *, base: Path, prefix: str = ""
) -> Record | None:
    """Return the record of an object, None where it cannot be used.

    Args:
        content: of which it is a part; its options name keys.
        entry: the object.
        place: in the file.
        problems: to add a line to.
        base: folder that its paths are relative to.
        prefix: what that folder is called in IDs, with a slash behind it.
    """
    if not isinstance(entry, Mapping):
        problems.append(f"{place}: expected an object with an image and a caption, found {shown(entry)}")
        return None
    names, options = list(entry), content.options
    path = image_of(entry, options.image_column)
    content.n_several += any(isinstance(value, list) and len(value) > 1 and path in value for value in entry.values())
    captions = captions_of(entry, options.caption_columns) if content.captions_needed else []
    if captions is None:
        what = f"the key {shown(options.caption_columns[0])}" if options.caption_columns else "a caption"
        problems.append(f"{place}: expected {what}, found {shown(entry)}")
        return None
    id_key = options.id_column or first_among(names, ID_NAMES)
    split_key = first_among(names, SPLIT_NAMES)
    own = entry.get(id_key) if id_key is not None else None
    if isinstance(own, bool) or not isinstance(own, str | int):
        own = None
    uses_id = own is not None and (path is None or options.id_column is not None)
    if path is None and not uses_id:
        problems.append(f"{place}: expected an image (a path), found {shown(entry)}")
        return None
    columns = {"image_id": own} if own is not None else {}
    picture: Picture | None = beside(base, path) if path is not None else None
    return checked_record(
        str(own) if uses_id else kept_id(entry), captions, place, problems, columns, picture=picture,
        path=None if path is None else prefix + path, split=entry.get(split_key) if split_key is not None else "",
    )  # fmt: skip


def image_of(entry: Mapping[str, Any], key: str | None) -> str | None:
    """Return the path of the picture that an object names, None where it names none."""
    key = key or first_among(list(entry), IMAGE_NAMES) or first_among(list(entry), ("images",))
    value = entry.get(key) if key is not None else None
    if isinstance(value, list) and value:  # LLaVA may show several pictures: the first one
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("path") or value.get("file_name")
    if value is None and isinstance(entry.get("messages"), list):
        value = next(filter(None, map(_shown_picture, entry["messages"])), None)
    return value if isinstance(value, str) and value.strip() else None


def captions_of(entry: Mapping[str, Any], keys: Sequence[str] = ()) -> list[Any] | None:
    """Return the captions of an object as they are written, None where it has no place for any."""
    names = list(entry)
    keys = keys or [names[i] for i in caption_places(names)]
    if keys:
        if any(key not in entry for key in keys):
            return None
        values = [entry[key] for key in keys]
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        texts = [text["raw"] if isinstance(text, Mapping) and "raw" in text else text for text in texts]
        return texts if len(keys) == 1 else [text for text in texts if text not in (None, "")]
    turns = entry.get("conversations") or entry.get("messages")
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, Mapping) and str(turn.get("from") or turn.get("role")) in OF_ASSISTANT:
            return [_text(turn.get("value", turn.get("content")))]
    return None


def _text(value: Any) -> Any:
    """Return the text of an answer: a string, or the parts of a list that are text."""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, Mapping)]
        return " ".join(part for part in parts if isinstance(part, str))
    return value


def _shown_picture(message: Any) -> str | None:
    """Return the picture that a chat message shows."""
    parts = message.get("content") if isinstance(message, Mapping) else None
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, Mapping):
            continue
        for key in ("image", "image_url", "path"):
            value = part.get(key)
            value = value.get("url") if isinstance(value, Mapping) else value
            if isinstance(value, str) and not value.startswith("data:"):
                return value.removeprefix("file://")
    return None
