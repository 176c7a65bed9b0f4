"""The cache: nothing is decoded twice, changed files are noticed, and killed writers harm nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from conftest import write_tiny_data
from img2seq.data import image as image_module
from img2seq.data import pixels as pixels_module
from img2seq.data.image import ImageSpec, Pixels, from_any
from img2seq.data.pixels import cache_pixels
from img2seq.data.records import find_images
from img2seq.data.row_store import RowStore
from img2seq.errors import DataError

SPEC = ImageSpec(16, 16)


@pytest.mark.parametrize("workers", [0, 3])
def test_cached_pixels_are_those_of_the_door(tmp_path: Path, workers: int) -> None:
    write_tiny_data(tmp_path)
    files = find_images(tmp_path / "images").files
    table = cache_pixels(files, SPEC, tmp_path / "cache", workers=workers)
    rows = table.store.map()
    for image_id, path in files.items():
        assert np.array_equal(rows[table.row_of[image_id]], from_any(path, SPEC))


def test_a_second_run_decodes_nothing_and_a_changed_file_alone_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path)
    files = find_images(tmp_path / "images").files
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
    changed = files["003"]
    changed.write_bytes(files["004"].read_bytes())
    os.utime(changed, (1, 1))
    table = cache_pixels(files, SPEC, tmp_path / "cache", workers=0)
    assert decoded[len(files) :] == [str(changed)]
    assert table.row_of["003"] == table.row_of["004"]  # the same content is kept once


def test_values_are_counted_once_for_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_data(tmp_path)
    table = cache_pixels(find_images(tmp_path / "images").files, SPEC, tmp_path / "cache", workers=0)
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
    files = find_images(tmp_path / "images").files
    files["002"].write_bytes(files["002"].read_bytes()[:60])
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
