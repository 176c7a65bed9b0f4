"""The cache: nothing is decoded twice, changed files are noticed, and killed writers harm nothing."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import write_tiny_data
from img2seq.data import image as image_module
from img2seq.data import pixels as pixels_module
from img2seq.data import row_store
from img2seq.data.image import ImageSpec, Pixels, from_any
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import find_images
from img2seq.data.row_store import RowStore
from img2seq.errors import DataError
from pictures import encoded

SPEC = ImageSpec(16, 16)


@pytest.mark.parametrize("workers", [0, 3])
def test_cached_pixels_are_those_of_the_door(tmp_path: Path, workers: int) -> None:
    write_tiny_data(tmp_path)
    files = find_images(tmp_path / "images").pictures
    table = cache_pixels(files, SPEC, tmp_path / "cache", workers=workers)
    rows = table.store.map()
    for image_id, path in files.items():
        assert np.array_equal(rows[table.row_of[image_id]], from_any(path, SPEC))


def test_a_second_run_decodes_nothing_and_a_changed_file_alone_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path)
    files = find_images(tmp_path / "images").pictures
    decoded: list[str] = []
    real = image_module.decode

    def counting(data: bytes, spec: ImageSpec, name: str) -> Pixels:
        decoded.append(name)
        return real(data, spec, name)

    monkeypatch.setattr(pixels_module, "decode", counting)
    cache_pixels(files, SPEC, tmp_path / "cache", workers=0)
    assert len(decoded) == len(files)
    cache_pixels(files, SPEC, tmp_path / "cache", workers=0)
    assert len(decoded) == len(files)
    images = tmp_path / "images"
    changed, copied = images / "003.png", images / "004.png"
    changed.write_bytes(encoded(Image.new("RGB", (40, 30), "white")))
    copied.write_bytes((images / "005.png").read_bytes())
    table = cache_pixels(files, SPEC, tmp_path / "cache", workers=0)
    assert decoded[len(files) :] == [str(changed)]
    assert table.row_of["004"] == table.row_of["005"]  # the same content is kept once


@pytest.fixture
def clocks_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were written just now be remembered, too."""
    monkeypatch.setattr(row_store, "SETTLED_NS", 0)


def hashed(
    files: Mapping[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Pixels], list[str]]:
    """Return the pixels of all files through the cache, and which files were read for it."""
    read = []

    def noting(path: str | Path, spec: ImageSpec) -> bytes:
        read.append(Path(path).name)
        return image_module.read_bytes(path, spec)

    with monkeypatch.context() as patched:
        patched.setattr(pixels_module, "picture_bytes", noting)
        table = cache_pixels(files, SPEC, cache, workers=0)
    rows = table.store.map()
    return {i: rows[row] for i, row in table.row_of.items()}, read


def bmp(colour: str) -> bytes:
    return encoded(Image.new("RGB", (8, 8), colour), "BMP")


@pytest.mark.parametrize("settled_ns", [0, 2_000_000_000])
def test_two_projects_with_alike_files_in_one_cache_have_their_own_pixels(
    settled_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "SETTLED_NS", settled_ns, raising=False)
    found = {}
    for colour in ("red", "blue", "red"):
        (tmp_path / colour / "images").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / colour)
        if not Path("images/0.bmp").exists():
            Path("images/0.bmp").write_bytes(bmp(colour))
            os.utime("images/0.bmp", (1e9, 1e9))
        pixels, _ = hashed({"0": Path("images/0.bmp")}, tmp_path / "cache", monkeypatch)
        found[colour] = pixels["0"][0, 0].tolist()
    assert found == {"red": [255, 0, 0], "blue": [0, 0, 255]}


@pytest.mark.parametrize("how", ["in place", "another file"])
@pytest.mark.usefixtures("clocks_are_fine")
def test_a_file_that_changes_while_it_is_read_is_read_again(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.bmp"
    path.write_bytes(bmp("red"))
    os.utime(path, (1e9, 1e9))

    def replaced(name: str | Path, spec: ImageSpec) -> bytes:
        data = image_module.read_bytes(name, spec)
        new = path if how == "in place" else tmp_path / "new"
        new.write_bytes(bmp("blue"))
        os.utime(new, (1e9, 1e9))  # as tools do that keep times
        new.replace(path)
        return data

    with monkeypatch.context() as patched:
        patched.setattr(pixels_module, "picture_bytes", replaced)
        cache_pixels({"0": path}, SPEC, tmp_path / "cache", workers=0)
    pixels, read = hashed({"0": path}, tmp_path / "cache", monkeypatch)
    assert (pixels["0"][0, 0].tolist(), read) == ([0, 0, 255], ["0.bmp"])
    assert hashed({"0": path}, tmp_path / "cache", monkeypatch)[1] == []


def test_a_file_of_this_moment_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new", "old"):
        (tmp_path / f"{name}.bmp").write_bytes(bmp("red"))
    files = {name: tmp_path / f"{name}.bmp" for name in ("new", "old")}
    now = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    os.utime(files["new"], ns=(now, now))
    hashed(files, tmp_path / "cache", monkeypatch)
    assert hashed(files, tmp_path / "cache", monkeypatch)[1] == ["new.bmp"]


@pytest.mark.usefixtures("clocks_are_fine")
def test_a_cache_of_the_first_version_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.bmp"
    path.write_bytes(bmp("red"))
    hashed({"0": path}, tmp_path / "cache", monkeypatch)
    (index,) = (tmp_path / "cache").rglob("index.sqlite")
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("DROP TABLE seen")
        connection.execute("CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, changed_ns INTEGER, content TEXT)")
        connection.execute("INSERT INTO files VALUES ('0.bmp', 1, 1, 'x')")
        connection.commit()
    monkeypatch.setattr(pixels_module, "decode", None)
    for read in (["0.bmp"], []):
        pixels, found = hashed({"0": path}, tmp_path / "cache", monkeypatch)
        assert (pixels["0"][0, 0].tolist(), found) == ([255, 0, 0], read)


@pytest.mark.parametrize("version", ["this", "first"])
def test_a_full_cache_may_be_read_only(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0.bmp").write_bytes(bmp("red"))
    files, cache = {"0": tmp_path / "0.bmp"}, tmp_path / "cache"
    hashed(files, cache, monkeypatch)
    (index,) = cache.rglob("index.sqlite")
    if version == "first":
        with closing(sqlite3.connect(index)) as connection:
            connection.execute("DROP TABLE seen")
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # as on a read-only disk, for root too
    pixels, _ = hashed(files, cache, monkeypatch)
    assert pixels["0"][0, 0].tolist() == [255, 0, 0]
    (tmp_path / "1.bmp").write_bytes(bmp("blue"))
    with pytest.raises(DataError, match=rf"{index.parent}: the cache is read-only and lacks 1 .* IMG2SEQ_CACHE"):
        hashed({"1": tmp_path / "1.bmp"}, cache, monkeypatch)
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def test_a_user_without_a_home_is_told_where_to_put_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMG2SEQ_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    with pytest.raises(DataError, match="cache_folder or IMG2SEQ_CACHE"):
        row_store.default_cache_folder()


def test_values_are_counted_once_for_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_data(tmp_path)
    table = cache_pixels(find_images(tmp_path / "images").pictures, SPEC, tmp_path / "cache", workers=0)
    ids = list(table.row_of)[:7]
    pixels = table.store.map()[[table.row_of[i] for i in ids]]
    expected = [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
    assert np.array_equal(table.value_counts(ids), expected)
    other = table.value_counts(ids[:6])
    assert not np.array_equal(other, expected)
    with monkeypatch.context() as closed:
        closed.setattr(RowStore, "map", None)
        assert np.array_equal(table.value_counts(ids[::-1]), expected)
    kept = list(table.store.folder.glob("counts-*.npy"))
    assert len(kept) == 2
    for damage in (b"", kept[0].read_bytes()[:-8], kept[0].read_bytes().replace(b"\x01", b"\x02")):
        for path in kept:
            path.write_bytes(damage)
        assert np.array_equal(table.value_counts(ids), expected)
        assert np.array_equal(table.value_counts(ids[:6]), other)


def test_a_broken_image_is_a_problem_and_never_other_pixels(tmp_path: Path) -> None:
    write_tiny_data(tmp_path)
    files = find_images(tmp_path / "images").pictures
    broken = tmp_path / "images/002.png"
    broken.write_bytes(broken.read_bytes()[:60])
    table = cache_pixels(files, SPEC, tmp_path / "cache", workers=2)
    assert list(table.problems) == ["002"]
    assert "002" not in table.row_of
    assert len(table.row_of) == len(files) - 1


def test_bytes_of_a_killed_writer_are_overwritten(tmp_path: Path) -> None:
    store = RowStore(tmp_path, (4,), np.uint8)
    store.add({"a": np.full(4, 1, np.uint8)})
    with (tmp_path / "rows.bin").open("ab") as file:
        file.write(b"\xff" * 6)  # a row and a half whose index never came
    store.add({"b": np.full(4, 2, np.uint8)})
    assert store.map()[store.rows_of(["a", "b"])].tolist() == [[1] * 4, [2] * 4]


def test_two_writers_keep_each_content_once(tmp_path: Path) -> None:
    first, second = RowStore(tmp_path, (2,), np.uint8), RowStore(tmp_path, (2,), np.uint8)
    first.add({"a": np.array([1, 1], np.uint8)})
    second.add({"a": np.array([1, 1], np.uint8), "b": np.array([2, 2], np.uint8)})
    assert len(first.map()) == 2
    assert first.rows_of(["a", "b", "c"]).tolist() == [0, 1, -1]


def test_a_cache_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache cannot be used"):
        RowStore(tmp_path / "file" / "x", (1,), np.uint8)


def test_a_cut_off_store_says_what_to_do(tmp_path: Path) -> None:
    store = RowStore(tmp_path, (4,), np.uint8)
    store.add({"a": np.zeros(4, np.uint8)})
    (tmp_path / "rows.bin").write_bytes(b"")
    with pytest.raises(DataError, match="remove the folder"):
        store.map()
