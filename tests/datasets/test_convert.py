"""Data converted to five formats and read again is the same: IDs, captions, their order, sides and the pictures' bytes."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import PEAK_MB, write_tiny_data
from img2seq.cli import main as cli
from img2seq.data.picture import picture_bytes
from img2seq.data.records import Problems, image_id_of
from img2seq.data.sources.read import match_images, read_captions
from img2seq.data.sources.source import checked_record
from img2seq.datasets.convert.convert import TARGETS, Conversion, convert
from img2seq.datasets.convert.folder import SPEC
from img2seq.errors import DataError
from img2seq.progress import Announcer
from in_formats import FORMATS, Sample, with_sides

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
    return {
        i: (texts, found.splits.get(i, ""), picture_bytes(pictures[i], SPEC)) for i, texts in found.captions.items()
    }


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


# --- whatever IDs, captions and sides there are


def picture(colour: int, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (4, 3), (colour % 256, colour // 256 % 256, colour * 7 % 256)).save(buffer, form)
    return buffer.getvalue()


# What a file can be called on every system, with what IDs are cut at or taken for: dots, extensions, the names of sides.
WORDS = ["x", "a", "000012", "IMG_1", "v1.2", "x.jpg", "my photo", "café", unicodedata.normalize("NFD", "café"), "写真", "ไทย", "images", "train", "test", "a-b", "x,y", "it's", "#1", "{0..1}", "[a]", "é" * 60]  # fmt: skip
PORTABLE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("/".join)
# What a file cannot be called somewhere; all targets but csv keep it.
ANY = st.one_of(
    PORTABLE, st.sampled_from(["..", "../x", "/etc/x", "a//x", "C:\\x", "a\\x", "con", "nul.1", "what?", "x.", ".hidden", "a/.b/c", "y" * 300, "X", "q" * 90 + "/" + "w" * 220, '"x"', "x\t1", "*.jpg"]),
    st.text(min_size=1, max_size=12),
)  # fmt: skip
CAPTION_WORDS = ["a", "dog,", 'says "hi"', ";", "one; two", "\t", "|", "'quoted'", '"', "ein Hund läuft", "一只狗", "كلب", "สุนัข", "कुत्ता", "👩‍👩‍👧", "...", "- x", "=1+1", "#0", "{}", "[1]", "\\n", "null", "3.0", "e\u0301"]  # fmt: skip
CAPTIONS = st.lists(
    st.one_of(st.lists(st.sampled_from(CAPTION_WORDS), min_size=1, max_size=6).map(" ".join), st.text(min_size=1)),
    min_size=1, max_size=7,
)  # fmt: skip
SIDES = st.sampled_from(["train", "val", "test", ""])


@st.composite
def data_sets(draw: st.DrawFn, ids: st.SearchStrategy[str]) -> list[dict[str, Any]]:
    """Return lines of JSON Lines, each with an image."""
    has_sides = draw(st.booleans())
    entries = draw(st.lists(st.tuples(ids, CAPTIONS, SIDES), min_size=1, max_size=6, unique_by=lambda entry: entry[0]))
    return [{"id": i, "captions": texts} | ({"split": side} if has_sides else {}) for i, texts, side in entries]


def write_source(entries: Sequence[dict[str, Any]], folder: Path) -> tuple[Path, Content]:
    """Write captions with IDs, pictures in Parquet without a name, and return what is read of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    forms = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
    rows = [{"image": {"bytes": picture(i, forms[i % 5])}, **entry} for i, entry in enumerate(entries)]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "source.parquet", row_group_size=2)
    found = read_captions(folder / "source.parquet")
    pictures = {i: picture_bytes(found.pictures[i], SPEC) for i in found.captions}
    return folder / "source.parquet", {
        i: (texts, found.splits.get(i, ""), pictures[i]) for i, texts in found.captions.items()
    }


def usable(entries: list[dict[str, Any]]) -> bool:
    """Tell whether the source itself can be used whole: no empty caption, no ID that is written in two ways."""
    problems: list[str] = []
    records = [checked_record(entry["id"], entry["captions"], "", problems) for entry in entries]
    return not problems and len({image_id_of(record.image_id) for record in records if record}) == len(entries)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(entries=data_sets(PORTABLE).filter(usable))
def test_a_chain_through_all_targets_keeps_everything(
    entries: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    source, expected = write_source(entries, folder / "source")
    images: Path | None = None
    try:
        for n, to in enumerate(CHAIN):
            source, images = run(source, to, folder / f"{n}-{to}", images=images, shard_size=2)
            assert content(source, images) == expected, to
    except DataError as error:  # names that differ in case alone, a folder with the name of a picture
        assert "cannot be the names of files" in str(error)
        assert any(word in str(error) for word in ("upper and lower case", "is the name of a picture"))
    finally:
        shutil.rmtree(folder)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(entries=data_sets(ANY).filter(usable))
def test_ids_that_are_no_names_of_files_are_kept(
    entries: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    source, expected = write_source(entries, folder / "source")
    try:
        for to in ("coco", "imagefolder", "webdataset", "parquet"):
            captions, images = run(source, to, folder / to, shard_size=2)
            assert content(captions, images) == expected, to
            assert content(*run(captions, "parquet", folder / f"{to}-again", images=images)) == expected, to
        try:
            assert content(*run(source, "csv", folder / "csv")) == expected
        except DataError as error:
            assert "cannot be the names of files" in str(error)
            assert not (folder / "csv").exists()
    finally:
        shutil.rmtree(folder)


# --- stopped and repeated, and what is there already


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def table(samples: list[Sample], tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    captions, _ = FORMATS["table"](samples, tmp_path / "data")
    return Path(captions)


# Kills itself when the nth picture is about to be written, in the middle of a file.
KILLED = """
import os, signal, sys
from img2seq.cli import main as cli
from img2seq.datasets.convert import folder, to_parquet, to_webdataset
n, how, *arguments = sys.argv[1:]
count, whole = 0, folder.picture_bytes
def read(*arguments):
    global count
    count += 1
    if count > int(n):
        os.kill(os.getpid(), getattr(signal, how))
    return whole(*arguments)
folder.picture_bytes = to_parquet.picture_bytes = to_webdataset.picture_bytes = read
cli.main(arguments)
"""


@pytest.mark.parametrize("to", TARGETS)
def test_a_killed_conversion_continues_and_ends_with_the_same_files(to: str, table: Path, tmp_path: Path) -> None:
    expected, target = tmp_path / "expected", tmp_path / "target"
    run(table, to, expected, shard_size=4)
    command = ["data", "convert", str(table), "--to", to, "--shard-size", "4", str(target)]
    for n, how in ((7, "SIGKILL"), (6, "SIGINT"), (0, "SIGKILL")):
        killed = [sys.executable, "-c", KILLED, str(n), how, *command]
        done = subprocess.run(killed, capture_output=True, text=True, check=False)
        assert done.returncode == (130 if how == "SIGINT" else -signal.SIGKILL), done.stderr
        assert how == "SIGKILL" or "the same command continues" in done.stderr
        assert not target.exists()
    assert cli.run(command) == 0
    assert tree(target) == tree(expected)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert content(*(target / part for part in (TARGETS[to].NEXT[0], TARGETS[to].NEXT[-1]))) == content(
        table, table.parent / "images"
    )


def test_what_was_done_before_a_kill_is_not_done_again(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "convert", str(table), "--to", "csv", str(tmp_path / "target")]
    subprocess.run([sys.executable, "-c", KILLED, "9", "SIGKILL", *command], capture_output=True, check=False)
    half = tmp_path / ".target.converting/images"
    inodes = {path.name: path.stat().st_ino for path in half.iterdir()}
    assert len(inodes) == 9
    assert cli.run(command) == 0
    assert "continues a conversion" in capsys.readouterr().err
    assert inodes.items() <= {path.name: path.stat().st_ino for path in (tmp_path / "target/images").iterdir()}.items()


def test_other_data_begins_again(table: Path, tmp_path: Path) -> None:
    command = ["data", "convert", str(table), "--to", "csv", str(tmp_path / "target")]
    subprocess.run([sys.executable, "-c", KILLED, "9", "SIGKILL", *command], capture_output=True, check=False)
    table.write_text(table.read_text().replace("ball", "globe"))
    assert cli.run(command) == 0
    assert "globe" in (tmp_path / "target/captions.csv").read_text()
    assert content(tmp_path / "target/captions.csv", tmp_path / "target/images") == content(
        table, table.parent / "images"
    )


def test_the_same_command_does_nothing_again(table: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(table, "coco", target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert "written already" in convert(Conversion(str(table), target, "coco"), QUIET)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before


def test_only_what_convert_wrote_is_replaced(table: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(table, "coco", target)
    with pytest.raises(DataError, match="--overwrite replaces it"):
        run(table, "csv", target)
    run(table, "csv", target, overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == [".img2seq-convert.json", "captions.csv", "images"]
    (target / "images/mine.png").write_bytes(picture(1))
    before = tree(target)
    with pytest.raises(DataError, match=r"1 file\(s\) that are not as.*\n.*images/mine.png: not written by it"):
        run(table, "parquet", target, overwrite=True)
    (target / "images/mine.png").unlink()
    with (target / "captions.csv").open("a") as file:
        file.write("000,one more\n")
    with pytest.raises(DataError, match=r"captions.csv: changed"):
        run(table, "parquet", target, overwrite=True)
    assert set(tree(target)) == set(before) - {"images/mine.png"}


@pytest.mark.parametrize("kind", ["a file", "a folder with a file", "a link", "the current folder"])
def test_what_is_there_is_not_replaced(kind: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    if kind == "a file":
        target.write_text("mine")
    elif kind == "a link":
        target.symlink_to(tmp_path / "data")
    else:
        target.mkdir()
        monkeypatch.chdir(target)
        (target / "notes.txt").write_text("mine") if kind != "the current folder" else None
    before = tree(tmp_path)
    with pytest.raises(DataError) as error:
        run(table, "csv", target, overwrite=True)
    assert str(target) in str(error.value)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_filled(table: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    assert content(*run(table, "csv", tmp_path / "target")) == content(table, table.parent / "images")


# --- what cannot be used


def test_what_cannot_be_used_is_listed_before_anything_is_written(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "data/images"
    (images / "003.png").unlink()
    (images / "005.png").write_bytes((images / "005.png").read_bytes()[:60])
    table.write_text(table.read_text() + "\n000.png;a;b;c;d\n")
    command = ["data", "convert", str(table), "--images", str(images), "--to", "coco", str(tmp_path / "target")]
    before = tree(tmp_path)
    assert cli.run(command) == 2
    error = capsys.readouterr().err
    assert all(
        part in error
        for part in (
            "1 row(s)",
            "expected 3 value(s)",
            "1 ID(s)",
            "003",
            "005.png: cannot be decoded",
            "--on-bad-data skip",
        )
    )
    assert tree(tmp_path) == before
    assert not (tmp_path / ".target.converting").exists()
    assert cli.run([*command, "--on-bad-data", "skip"]) == 0
    assert "left out" in capsys.readouterr().err
    found = content(tmp_path / "target/annotations/captions.json", tmp_path / "target/images")
    assert len(found) == 14
    assert not {"003", "005"} & set(found)


def test_where_pictures_are_must_be_known(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("ID,Sequence\nx,a dog\n")
    with pytest.raises(DataError, match="name the folder with --images DIR"):
        run(tmp_path / "captions.csv", "coco", tmp_path / "target")


def test_an_id_that_is_no_name_is_one_error_of_csv(tmp_path: Path) -> None:
    source, _ = write_source(
        [{"id": "what?", "captions": ["a dog"]}, {"id": "x", "captions": ["a cat"]}], tmp_path / "source"
    )
    with pytest.raises(DataError, match=r"1 ID\(s\) cannot be the names of files.*keep such IDs:\n  'what\?' has '\?'"):
        run(source, "csv", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_parquet_needs_pyarrow(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'pip install "img2seq\[formats\]"'):
        run(table, "parquet", tmp_path / "target")


# --- the shape of each target


def test_csv_is_word_for_word(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, n=3)
    captions, images = run(tmp_path / "captions.csv", "csv", tmp_path / "target")
    assert captions.read_text().splitlines()[0] == "ID,Sequence"
    assert tree(images) == tree(tmp_path / "images")


def test_a_split_is_a_third_column(table: Path, tmp_path: Path) -> None:
    captions, _ = run(table, "csv", tmp_path / "target")
    assert captions.read_text().splitlines()[0] == "ID,Sequence,split"


def test_coco_keeps_the_numbers_of_the_source(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    captions, images = FORMATS["karpathy"](samples, tmp_path / "source")
    path, _ = run(captions, "coco", tmp_path / "target", images=images)
    data = json.loads(path.read_text())
    assert [image["id"] for image in data["images"]] == list(range(100, 116))
    assert data["images"][0] == {"id": 100, "file_name": "train2014/000.png", "split": "train"} or data["images"][0] == {
        "id": 100, "file_name": "000.png", "split": "train",
    }  # fmt: skip
    assert [a["id"] for a in data["annotations"]] == list(range(1, 33))


def test_shards_are_bounded_and_named_by_side(table: Path, tmp_path: Path) -> None:
    run(table, "webdataset", tmp_path / "w", shard_size=5)
    run(table, "parquet", tmp_path / "p", shard_size=5)
    assert sorted(tree(tmp_path / "w")) == [
        "test-000000.tar",
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
        "validation-000000.tar",
    ]
    assert sorted(tree(tmp_path / "p")) == [
        "test-00000-of-00001.parquet", "train-00000-of-00003.parquet", "train-00001-of-00003.parquet", "train-00002-of-00003.parquet",
        "validation-00000-of-00001.parquet",
    ]  # fmt: skip
    with tarfile.open(tmp_path / "w/train-000000.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:3]] == ["000.png", "000.json", "001.png"]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


def test_parquet_names_its_features(table: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run(table, "parquet", tmp_path / "p")
    schema = pq.read_schema(tmp_path / "p/train-00000-of-00001.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert schema.names == ["image", "captions"] == list(features)
    assert features["image"] == {"_type": "Image"}


def test_the_next_commands_work(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["data", "convert", str(table), "--to", "csv", str(tmp_path / "my target")]) == 0
    out = capsys.readouterr().out
    assert "csv with 16 images (12 train, 2 validation, 2 test), 32 captions, in 17 files" in out
    check, init = (shlex.split(line)[1:] for line in out.splitlines()[-2:])
    assert cli.run(check) < 2
    assert cli.run([*init, "--output", str(tmp_path / "experiment.yaml")]) == 0


MEMORY = """
import sys
from pathlib import Path
from img2seq.datasets.convert.convert import Conversion, convert
from img2seq.progress import Announcer
convert(Conversion(sys.argv[1], Path(sys.argv[2]), sys.argv[3], workers=0), Announcer(level="critical", bars=False))
print(peak_mb())
"""


@pytest.mark.parametrize("to", ["webdataset", "parquet"])
def test_memory_does_not_grow_with_the_pictures(to: str, tmp_path: Path) -> None:
    """300 MB of pictures are written with less than half of that more than 4 MB are."""
    big = picture(1) + bytes(1_000_000)
    peaks = {}
    for n in (4, 300):
        images = tmp_path / f"{n}/images"
        images.mkdir(parents=True)
        for i in range(n):
            (images / f"{i:03}.png").write_bytes(big)
        rows = [f"{i:03},a dog" for i in range(n)]
        (tmp_path / f"{n}/captions.csv").write_text("\n".join(["ID,Sequence", *rows]))
        command = [
            sys.executable,
            "-c",
            PEAK_MB + MEMORY,
            str(tmp_path / f"{n}/captions.csv"),
            str(tmp_path / f"{n}/out"),
            to,
        ]
        peaks[n] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peaks[300] - peaks[4] < 150
