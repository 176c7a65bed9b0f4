"""The output of `img2seq caption`: cut anywhere, killed at any time, a file is continued to what an uninterrupted command writes, or left as it is."""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

import children
from conftest import img2seq
from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec
from img2seq.errors import DataError
from img2seq.inference.caption_files import Captioned, caption_files
from img2seq.inference.caption_output import CaptionOutput, Layout
from img2seq.inference.predictor import Caption
from img2seq.progress import Announcer

LAYOUTS = {
    "text": Layout(),
    "text of 3": Layout(n_captions=3),
    "csv": Layout("csv"),
    "csv of 3 with probabilities": Layout("csv", probabilities=True, n_captions=3),
    "jsonl": Layout("jsonl"),
    "jsonl of 3": Layout("jsonl", n_captions=3),
    "jsonl of 2 with probabilities": Layout("jsonl", probabilities=True, n_captions=2),
    "coco": Layout("coco"),
    "coco with integers": Layout("coco", integer_ids=True),
}
NAMES: list[str | bytes] = ["000000000139.png", "7.png", "a, b.png", 'a "b".png', "tab\tand\nline\rbreak.png", "broken.png", "é中.png", b"caf\xe9.png", "other/7.png", "z.png", "7.png"]  # fmt: skip


class FakeCaptioner:
    """Captions whose digits depend on the whole batch, as a model's do."""

    spec = ImageSpec(8, 8)
    specs = MappingProxyType({"photo": spec})
    batch_size = 3

    def __init__(self, *, interrupted_at: int = -1) -> None:
        self.n_batches, self.interrupted_at = 0, interrupted_at
        self.captioned: list[str] = []

    def caption_views(
        self, views: Sequence[Any], decoding: Decoding, *, beginning: str = "", names: Sequence[str]
    ) -> list[Caption]:
        if self.n_batches == self.interrupted_at:
            raise KeyboardInterrupt
        self.n_batches += 1
        self.captioned += names
        digits = -zlib.crc32(ascii(names).encode()) / 1e9
        return [self._caption(name, digits, n_others=2 if name != names[0] else 1) for name in names]

    def _caption(self, name: str, digits: float, *, n_others: int = 0) -> Caption:
        text = f'a "dog", {zlib.crc32(ascii(name).encode()) % 100} 中'
        others = tuple(self._caption(f"{name}{n}", digits) for n in range(n_others))
        return Caption(text, digits, ("中",), (digits,), others)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("img2seq.inference.caption_files.READERS", 1)  # threads take longer to start than these to read
    monkeypatch.chdir(tmp_path)
    Path("p/other").mkdir(parents=True)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    found = []
    for name in NAMES:
        path = Path("p") / (os.fsdecode(name) if isinstance(name, bytes) else name)
        path.write_bytes(b"no image" if name == "broken.png" else picture.read_bytes())
        found.append(str(path))
    return found


def write(
    file: Path, paths: Sequence[str], layout: Layout, *, resume: bool = False, captioner: FakeCaptioner | None = None
) -> Captioned:
    fake: Any = captioner or FakeCaptioner()
    with CaptionOutput(file, layout, resume=resume) as output:
        return caption_files(fake, paths, Decoding(), output, announce=Announcer(level="critical", bars=False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "captions"


@pytest.mark.parametrize("name", LAYOUTS)
def test_cut_at_every_byte_a_file_is_continued_to_the_whole(name: str, paths: list[str], file: Path) -> None:
    layout = LAYOUTS[name]
    done = write(file, paths, layout)
    whole = file.read_bytes()
    assert done.n_captioned > 6
    assert done.n_failed == {"text": 2, "coco": 3}.get(
        layout.form, 1
    )  # broken; no place in text; one ID twice, with coco
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        captioner = FakeCaptioner()
        again = write(file, paths, layout, resume=True, captioner=captioner)
        assert file.read_bytes() == whole, size
        assert again.n_failed == done.n_failed
        n_errors = sum(b'"error"' in line for line in whole[:size].splitlines(keepends=True) if line.endswith(b"\n"))
        assert again.n_captioned + again.n_kept - n_errors == done.n_captioned
    assert captioner.captioned == []  # of a whole file nothing is captioned again


@pytest.mark.parametrize("name", LAYOUTS)
def test_stopped_in_any_batch_a_file_is_continued_to_the_whole(name: str, paths: list[str], file: Path) -> None:
    write(file, paths, LAYOUTS[name])
    whole = file.read_bytes()
    for n in range(3):
        file.unlink()
        with pytest.raises(KeyboardInterrupt):
            write(file, paths, LAYOUTS[name], captioner=FakeCaptioner(interrupted_at=n))
        assert file.exists() == (n > 0)  # nothing done, nothing left behind
        write(file, paths, LAYOUTS[name], resume=True)
        assert file.read_bytes() == whole


def left_alone(file: Path, content: bytes, paths: Sequence[str], layout: Layout) -> str:
    """Return the error of continuing a file, having checked that not a byte of it changed."""
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        write(file, paths, layout, resume=True)
    assert file.read_bytes() == content
    assert len(str(caught.value)) < 800
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_another_layout_is_left_alone(name: str, paths: list[str], file: Path, tmp_path: Path) -> None:
    for other, layout in LAYOUTS.items():
        if other != name:
            (tmp_path / "other").unlink(missing_ok=True)
            write(tmp_path / "other", paths, layout)
            left_alone(file, (tmp_path / "other").read_bytes(), paths, LAYOUTS[name])


FOREIGN = {
    "notes": b"my notes\nline two",
    "one word": b"notes",
    "one byte": b"x",
    "zeros": b"\0\0\0\n\0",
    "UTF-16": "path,caption\n".encode("utf-16"),
    "indented results": b'[\n {\n  "image_id": "007",\n  "caption": "keep me"\n }\n]',
    "results on one line": b'[{"image_id": "7", "caption": "keep me"}]\n',
    "results in another order": b'[\n{"caption": "keep me", "image_id": "7"}\n]\n',
    "results with scores": b'[\n{"image_id": "7", "caption": "keep me", "score": 1}\n]\n',
    "results with lists as ids": b'[\n{"image_id": ["7"], "caption": "keep me"}\n]\n',
    "rows without commas": b'[\n{"image_id": "7", "caption": "a"}\n{"image_id": "z", "caption": "a"}\n]\n',
    "nothing but an end": b"]\n",
    "nested": b"[\n" + b"[" * 100_000 + b"\n",
    "other columns": b"path,caption,score\nx,a,1\n",
    "other header": b"image,caption\nx,a\n",
    "a byte order mark": b"\xef\xbb\xbfpath,caption\nx,a\n",
    "line ends of Windows": b"path,caption\r\nx,a\r\n",
    "quoted": b'path,caption\n"x","a"\n',
    "a row too short": b"path,caption\nx\n",
    "a quote never closed": b'path,caption\n"x,a\nb,c\n',
    "numbers": b"1\n2\n",
    "a tab first": b"\tindented\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_ours_is_left_alone(name: str, paths: list[str], file: Path) -> None:
    for layout in LAYOUTS.values():
        left_alone(file, FOREIGN[name], paths, layout)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_would_be_lost_is_left_alone(name: str, paths: list[str], file: Path) -> None:
    layout = LAYOUTS[name]
    write(file, paths, layout)
    whole = file.read_bytes()
    added = whole + b"and a note"
    for content in (added, added + b"\n"):
        left_alone(file, content, paths, layout)
    elsewhere = [path.replace("p/", "q/").replace(".png", "0.png") for path in paths[:2]]
    assert "none of these images is in it" in left_alone(file, whole, elsewhere, layout)
    rows = whole[: whole.index(b"z.png" if layout.form != "coco" else b'"z"') + 1]
    rows = rows[: rows.rindex(b"\n") + 1]
    found = left_alone(file, rows + b"a caption of somebod", paths, layout)
    assert "a caption of somebod" in found


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_that_came_meanwhile_are_added_at_the_end(name: str, paths: list[str], file: Path) -> None:
    few, layout = [path for path in paths if not path.endswith("z.png")], LAYOUTS[name]
    write(file, few, layout)
    kept = file.read_bytes().removesuffix(layout.end.encode())
    write(file, paths, layout, resume=True)
    found = file.read_bytes()
    assert found.startswith(kept + layout.separator.encode())
    assert found.count(b"\n") == kept.count(b"\n") + 1 + 2 * (layout.form == "coco")


@pytest.mark.parametrize(
    ("content", "form"),
    [(b"path,caption\n", "csv"), (b"[\n", "coco"), (b"", "coco"), (b"[", "coco"), (b"p", "csv"), (b"", "csv")],
)
def test_what_a_stop_in_the_first_batch_left_is_continued(
    content: bytes, form: str, paths: list[str], file: Path, tmp_path: Path
) -> None:
    file.write_bytes(content)
    write(file, paths, Layout(form), resume=True)
    write(tmp_path / "whole", paths, Layout(form))
    assert file.read_bytes() == (tmp_path / "whole").read_bytes()
    assert form == "csv" or json.loads(file.read_bytes())


# --- the command


@pytest.fixture
def many(finished_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(64):
        shutil.copy(finished_runs[1].parent / f"images/{i % 32:03}.png", folder / f"{i:012}.png")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "x.txt"],
        ["--output", "x.CSV", "--probabilities"],
        ["--output", "x.jsonl", "--n-best", "2", "--probabilities"],
        ["--output", "x.json", "--integer-ids"],
    ],
    ids=lambda arguments: arguments[1],
)
def test_killed_while_it_writes_nothing_is_lost(
    arguments: list[str], finished_runs: tuple[Path, Path], many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["caption", str(finished_runs[1]), str(many), *arguments, "--batch-size", "1"]
    file = tmp_path / arguments[1]
    assert img2seq(*command) == 0
    whole = file.read_bytes()
    file.unlink()
    with children.child(children.img2seq, command) as child:
        while child.is_alive() and not (file.exists() and file.stat().st_size > len(whole) // 8):
            time.sleep(0.0005)
        child.kill()
    assert 0 < file.stat().st_size < len(whole), "killed too late: nothing was tried"
    assert img2seq(*command, "--resume") == 0
    assert file.read_bytes() == whole
