"""Karpathy's splits (`dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`): sentences and a side for each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from img2seq.data.sources.content import Content
from img2seq.data.sources.source import Format, Record, beside, checked_record
from img2seq.errors import shown

ID_COLUMNS = ("cocoid", "imgid")  # COCO's scorer wants the first


def recognise(content: Content) -> bool:
    data = content.json
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or not images:
        return False
    return "annotations" not in data and any("sentences" in image for image in images if isinstance(image, dict))


def read(content: Content, problems: list[str]) -> Iterator[Record]:
    """Yield a record for each image; its path is `filepath/filename`, or `filename` alone."""
    content.title = f"Karpathy split {_quoted(content.json.get('dataset'))}".rstrip()
    for index, image in enumerate(content.json["images"]):
        place = f"images[{index}]"
        if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
            problems.append(f'{place}: expected {{"filename": ..., "sentences": [...]}}, found {shown(image)}')
            continue
        sentences = image.get("sentences")
        if not content.captions_needed:
            sentences = []
        elif not isinstance(sentences, list) or not sentences:
            problems.append(f"{place}: {shown(image['filename'])} has no sentences, found {shown(sentences)}")
            continue
        texts = [sentence.get("raw") if isinstance(sentence, dict) else sentence for sentence in sentences]
        folder = image.get("filepath")
        path = f"{folder}/{image['filename']}" if isinstance(folder, str) and folder else image["filename"]
        columns = {
            name: image[name]
            for name in ID_COLUMNS
            if isinstance(image.get(name), str | int) and image[name] not in (True, False)
        }
        picture = beside(content.path.parent, path)
        record = checked_record(
            "", texts, place, problems, columns, path=path, picture=picture, split=image.get("split")
        )
        if record is not None:
            yield record


def _quoted(name: Any) -> str:
    return f'"{name}"' if isinstance(name, str) else ""


FORMAT = Format("karpathy", "a Karpathy split (JSON with images and sentences)", recognise, read, ID_COLUMNS)
