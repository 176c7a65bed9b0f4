"""Data converted to five formats and read again is the same: IDs, captions, their order, sides and the pictures' bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_formats import FORMATS, Sample, with_sides
from PIL import Image

from conftest import PEAK_MB, write_tiny_data
from img2seq.cli import main as cli
from img2seq.data.convert.convert import TARGETS, Conversion, convert
from img2seq.data.convert.folder import SPEC
from img2seq.data.picture import picture_bytes
from img2seq.data.records import Problems
from img2seq.data.sources.read import match_images, read_captions
from img2seq.errors import DataError
from img2seq.progress import Announcer

QUIET = Announcer(level="critical", bars=False)
CHAIN = ("csv", "coco", "parquet", "webdataset", "imagefolder", "csv")
Content = dict[str, tuple[list[str], str, bytes]]  # captions, side and picture by ID


def run(source: Path | str, to: str, target: Path, **options: Any) -> tuple[Path, Path]:
    """Convert, and return where captions and pictures are."""
    options["images"] = str(options["images"]) if options.get("images") else None
    convert(Conversion(str(source), target, to, **{"workers": 0, **options}), QUIET)
    parts = TARGETS[to].NEXT
    return target / parts[0], target / parts[-1]


def content(captions: Path | str, images: Path | str) -> Content:
    found = read_captions(captions)
    problems = Problems()
    pictures, _ = match_images(found, found.captions, images, "images", problems, captions)
    assert not problems, problems.text()
    assert found.problems == []
    return {i: (texts, found.splits.get(i, ""), picture_bytes(pictures[i], SPEC)) for i, texts in found.captions.items()}


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    write_tiny_data(tmp_path / "tiny", n=16)
    captions = read_captions(tmp_path / "tiny/captions.csv").captions
    files = sorted((tmp_path / "tiny/images").iterdir())
    return with_sides([(path.name, path.read_bytes(), tuple(captions[path.stem])) for path in files])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_every_target(name: str, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    captions, images = map(str, FORMATS[name](samples, tmp_path / "source"))
    expected = content(captions, images)
    assert len(expected) == 16
    for to in TARGETS:
        assert content(*run(captions, to, tmp_path / to, images=images, shard_size=5)) == expected, to
