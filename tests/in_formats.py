"""The same pictures and captions in each of the formats that people have them in, written here without the package's own writers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import SHARED

SPLIT_IN_WORDS = {"train": "train", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class Sample:
    """A picture with its captions."""

    name: str  # of the file
    data: bytes
    captions: tuple[str, ...]
    side: str  # train, valid or test

    @property
    def image_id(self) -> str:
        return self.name.rpartition(".")[0]


def with_sides(samples: Sequence[tuple[str, bytes, tuple[str, ...]]]) -> list[Sample]:
    """Put every fourth sample into validation and every eighth into the test part."""
    return [
        Sample(*sample, side="test" if i % 8 == 7 else "valid" if i % 4 == 3 else "train")
        for i, sample in enumerate(samples)
    ]


def coco_mini() -> list[Sample]:
    """Return the 80 photographs of coco_mini with their five captions, by file name."""
    folder = SHARED / "data/coco_mini"
    content = json.loads((folder / "annotations/captions_train2017.json").read_text())
    captions: dict[int, list[str]] = {}
    for annotation in content["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    names = sorted((image["file_name"], image["id"]) for image in content["images"])
    return with_sides([(name, (folder / "train2017" / name).read_bytes(), tuple(captions[n])) for name, n in names])


def write_images(samples: Sequence[Sample], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for sample in samples:
        (folder / sample.name).write_bytes(sample.data)
    return folder


Written = tuple[Path | str, Path | str]  # where the captions are, and the pictures


def table(samples: Sequence[Sample], folder: Path) -> Written:
    rows = [f'{s.name};"{text.replace(chr(34), chr(34) * 2)}";{s.side}' for s in samples for text in s.captions]
    path = folder / "captions.csv"
    path.write_text("\n".join(["filename;description;split", *rows]), encoding="utf-8")
    return path, write_images(samples, folder / "images")


def workbook(samples: Sequence[Sample], folder: Path) -> Written:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    n = max(len(s.captions) for s in samples)
    sheet.append(["file name", "Split", *(f"Caption {i + 1}" for i in range(n))])
    for s in samples:
        sheet.append([s.name, s.side, *s.captions])
    book.save(folder / "captions.xlsx")
    return folder / "captions.xlsx", write_images(samples, folder / "images")


def coco(samples: Sequence[Sample], folder: Path) -> Written:
    images = [{"id": 100 + i, "file_name": s.name, "split": s.side} for i, s in enumerate(samples)]
    annotations = [
        {"id": 9, "image_id": 100 + i, "caption": text} for i, s in enumerate(samples) for text in s.captions
    ]
    path = folder / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path, write_images(samples, folder / "images")


def karpathy(samples: Sequence[Sample], folder: Path) -> Written:
    sides = {"train": "restval", "valid": "val", "test": "test"}
    images = [
        {"filepath": "train2014", "filename": s.name, "cocoid": 100 + i, "imgid": i, "split": sides[s.side],
         "sentences": [{"raw": text, "tokens": text.split(), "imgid": i} for text in s.captions]}
        for i, s in enumerate(samples)
    ]  # fmt: skip
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    write_images(samples, folder / "pictures/train2014")
    return path, folder / "pictures"


def flickr(samples: Sequence[Sample], folder: Path) -> Written:
    lines = [f"{s.name}#{i}\t{text}" for s in samples for i, text in enumerate(s.captions)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines), encoding="utf-8")
    for side, name in (("train", "train"), ("valid", "dev"), ("test", "test")):
        names = [s.name for s in samples if s.side == side]
        (folder / f"Flickr_8k.{name}Images.txt").write_text("\n".join(names))
    return folder / "Flickr8k.token.txt", write_images(samples, folder / "images")


def image_folder(samples: Sequence[Sample], folder: Path) -> Written:
    for side, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        some = [s for s in samples if s.side == side]
        write_images(some, folder / name)
        lines = [json.dumps({"file_name": s.name, "text": text}) for s in some for text in s.captions]
        (folder / name / "metadata.jsonl").write_text("\n".join(lines))
    return folder, folder


def parquet(samples: Sequence[Sample], folder: Path) -> Written:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for side, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        some = [s for s in samples if s.side == side]
        shards = [some[: len(some) // 2], some[len(some) // 2 :]]
        for n, shard in enumerate(shards):
            rows = [{"image": {"bytes": s.data, "path": s.name}, "caption": list(s.captions)} for s in shard]
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}-{n:05}-of-00002.parquet", row_group_size=5)
    return f"{folder}/*.parquet", f"{folder}/*.parquet"


def webdataset(samples: Sequence[Sample], folder: Path) -> Written:
    for side, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        some = [s for s in samples if s.side == side]
        for n in range(2):
            with tarfile.open(folder / f"flickr-{name}-{n:06}.tar", "w") as archive:
                for s in some[n * len(some) // 2 : (n + 1) * len(some) // 2]:
                    key, _, ending = s.name.partition(".")
                    for name_, data in (
                        (f"{key}.{ending}", s.data),
                        (f"{key}.json", json.dumps({"captions": s.captions}).encode()),
                    ):
                        member = tarfile.TarInfo(name_)
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
    return f"{folder}/flickr-*.tar", f"{folder}/flickr-*.tar"


def json_lines(samples: Sequence[Sample], folder: Path) -> Written:
    lines = [json.dumps({"image": f"images/{s.name}", "captions": s.captions, "split": s.side}) for s in samples]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder / "captions.jsonl", write_images(samples, folder / "images")


def blip(samples: Sequence[Sample], folder: Path) -> Written:
    entries = [
        {"image": f"images/{s.name}", "caption": text, "image_id": f"coco_{i}", "split": s.side}
        for i, s in enumerate(samples) for text in s.captions
    ]  # fmt: skip
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder / "captions.json", write_images(samples, folder / "images")


def llava(samples: Sequence[Sample], folder: Path) -> Written:
    question = {"from": "human", "value": "<image>\nWhat is in the picture?"}
    entries: list[dict[str, object]] = [
        {"id": f"{i}", "image": f"images/{s.name}", "split": s.side,
         "conversations": [question, {"from": "gpt", "value": text}, question, {"from": "gpt", "value": "no"}]}
        for i, s in enumerate(samples) for text in s.captions
    ]  # fmt: skip
    (folder / "llava.json").write_text(json.dumps([*entries, {"id": "text alone", "conversations": [question]}]))
    return folder / "llava.json", write_images(samples, folder / "images")


def sidecar(samples: Sequence[Sample], folder: Path) -> Written:
    for side, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        some = [s for s in samples if s.side == side]
        write_images(some, folder / name)
        for s in some:
            (folder / name / f"{s.image_id}.txt").write_text("\n".join(s.captions), encoding="utf-8")
    return folder, folder


FORMATS: dict[str, Callable[[Sequence[Sample], Path], Written]] = {
    "table": table, "workbook": workbook, "coco": coco, "karpathy": karpathy, "flickr": flickr, "imagefolder": image_folder,
    "parquet": parquet, "webdataset": webdataset, "jsonl": json_lines, "blip": blip, "llava": llava, "sidecar": sidecar,
}  # fmt: skip
KEYS = {name: "table" if name == "workbook" else name for name in FORMATS}
