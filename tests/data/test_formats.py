"""The same photographs and captions in every format: the same IDs, captions, splits and batches; and each format's typical damage."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from conftest import SHARED, write_tiny_data
from img2seq.build.prepare import Prepared, prepare
from img2seq.config.globals import BasicExperiment
from img2seq.config.load import ConfigFiles, load
from img2seq.config.outputs import ReadOptions
from img2seq.data.image import ImageSpec
from img2seq.data.order import validation_plan
from img2seq.data.picture import Member, picture_bytes
from img2seq.data.records import match_pictures
from img2seq.data.sources import parquet
from img2seq.data.sources import read as reading
from img2seq.data.sources.read import images_at, read_captions, read_source
from img2seq.data.split import without_test
from img2seq.errors import DataError
from img2seq.progress import Announcer
from in_formats import FORMATS, KEYS, Sample, coco_mini, with_sides

needs_coco_mini = pytest.mark.skipif(
    not (SHARED / "data/coco_mini").is_dir(), reason="needs ../shared/data/coco_mini, which is not here"
)


def tiny(folder: Path) -> list[Sample]:
    write_tiny_data(folder, n=16)
    captions = read_captions(folder / "captions.csv").captions
    files = sorted((folder / "images").iterdir())
    return with_sides([(path.name, path.read_bytes(), tuple(captions[path.stem])) for path in files])


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return tiny(tmp_path / "tiny")


def written(name: str, samples: list[Sample], folder: Path) -> tuple[str, str]:
    folder.mkdir()
    captions, images = FORMATS[name](samples, folder)
    return str(captions), str(images)


def prepared(folder: Path, captions: str, images: str, *overrides: str) -> Prepared:
    experiment = {
        "globals": {"basic_experiment": {"output_folder": str(folder / "run"), "batch_size": 8}},
        "inputs": [{"input_info": {"input_source": images, "input_name": "photo", "input_type": "image"},
                    "input_type_info": {"size": [32]}, "model_config": {"model_type": "resnet18"}}],
        "outputs": [{"output_info": {"output_source": captions, "output_name": "captions", "output_type": "sequence"},
                     "output_type_info": {"min_freq": 1}}],
    }  # fmt: skip
    path = folder / "experiment.yaml"
    path.write_text(json.dumps(experiment))
    return prepare(load(ConfigFiles(str(path)), list(overrides)).experiment, Announcer(bars=False))


def everything(data: Prepared) -> dict[str, Any]:
    """Return sides, captions, and the first batch of both parts."""
    batches = [part.batch(validation_plan(part.captions_of, batch_size=8)[0]) for part in (data.train, data.valid)]
    return {
        "ids": (data.train.image_ids, data.valid.image_ids, sorted(data.test)),
        "captions": (data.train.captions, data.valid.captions),
        "digests": data.data,
        "tokens": [batch.input_ids.tolist() for batch in batches],
        "pixels": [batch.pixels["photo"] for batch in batches],
    }


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert all(torch.equal(*pair) for pair in zip(found["pixels"], expected["pixels"], strict=True))
    assert {**found, "pixels": []} == {**expected, "pixels": []}


@needs_coco_mini
def test_coco_mini_is_the_same_in_every_format(tmp_path: Path) -> None:
    samples = coco_mini()
    expected: dict[str, Any] = {}
    for name in FORMATS:
        folder = tmp_path / name
        captions, images = written(name, samples, folder)
        source = read_source(captions)
        assert source.format.key == KEYS[name], name
        found = read_captions(captions)
        assert found.captions == {s.image_id: [" ".join(t.split()) for t in s.captions] for s in samples} or name in (
            "imagefolder", "parquet", "webdataset", "sidecar",  # by side
        ), name  # fmt: skip
        assert found.splits == {s.image_id: s.side for s in samples}, name
        assert found.problems == [], name
        assert "50 train, 20 val, 10 test images" in found.summary.replace("60 train, 10 val", "50 train, 20 val"), name
        seen = everything(prepared(tmp_path, captions, images))
        expected = expected or seen
        assert_alike(seen, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_may_be_named_and_the_split_left_alone(name: str, samples: list[Sample], tmp_path: Path) -> None:
    captions, images = written(name, samples, tmp_path / name)
    options = ReadOptions(format=KEYS[name])  # type: ignore[arg-type]
    found = read_captions(captions, options)
    assert sorted(found.captions) == sorted(s.image_id for s in samples)
    assert len(images_at(images, {captions: found}).pictures) == len(samples)
    drawn = prepared(
        tmp_path, captions, images, "globals.basic_experiment.splits=random", "globals.basic_experiment.valid_size=4"
    )
    assert (len(drawn.train), len(drawn.valid), drawn.test) == (12, 4, [])
    other = "coco" if KEYS[name] != "coco" else "karpathy"
    with pytest.raises(DataError, match=r"expected a (COCO|Karpathy).*found"):
        read_source(captions, ReadOptions(format=other))  # type: ignore[arg-type]


def test_every_format_can_be_named() -> None:
    field = ReadOptions.model_fields["format"].annotation
    assert [get_args(part) for part in get_args(field)][0] == tuple(  # noqa: RUF015
        sorted((known.key for known in reading.FORMATS), key=list(get_args(get_args(field)[0])).index)
    )


# --- the typical damage of each


def _drop_a_picture(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        next(iter(sorted(folder.rglob(name)))).unlink()

    return damage


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (path,) = folder.rglob(name)
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def _cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = sorted(folder.rglob(name))[0]
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return damage


def _empty(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        next(folder.rglob(name)).write_text(" \n")

    return damage


def _without_captions(folder: Path) -> None:
    """Take a sample's captions out of a shard."""
    path = sorted(folder.glob("*train*.tar"))[0]
    with tarfile.open(path) as old, tarfile.open(folder / "new.tar", "w") as new:
        for i, member in enumerate(old):
            if i != 1:
                new.addfile(member, old.extractfile(member))
    (folder / "new.tar").replace(path)


def _compressed(folder: Path) -> None:
    for path in sorted(folder.glob("*.tar")):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def _twice_in_two_lists(folder: Path) -> None:
    train = (folder / "Flickr_8k.trainImages.txt").read_text().splitlines()
    with (folder / "Flickr_8k.devImages.txt").open("a") as file:
        file.write(f"\n{train[0]}")


def _other_columns(folder: Path) -> None:
    import pyarrow.parquet as pq

    for path in folder.glob("*.parquet"):
        rows = pq.read_table(path).rename_columns(["picture", "words"])
        pq.write_table(rows, path)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "a row with a comma too many": ("table", _edit("captions.csv", '";train', '";train;more'), ["line 2", "found 4", "semicolon"]),
    "a wrong split": ("table", _edit("captions.csv", ";train", ";tarin"), ["'tarin'", "train, training"]),
    "a picture that is missing": ("table", _drop_a_picture("003.png"), ["1 ID(s)", "003"]),
    "a workbook that is cut": ("workbook", _cut("captions.xlsx", 0.5), ["captions.xlsx", "ZIP"]),
    "an annotation of no image": ("coco", _edit("captions.json", '"image_id": 100', '"image_id": 7'), ["annotations[0]", "7"]),
    "a misspelt key": ("coco", _edit("captions.json", '"caption"', '"captoin"'), ["annotations[0]", '"caption"']),
    "an image without sentences": ("karpathy", _edit("dataset_coco.json", '"sentences"', '"sentence"'), ["images[0]", "sentences"]),
    "a picture of another folder": ("karpathy", _drop_a_picture("003.png"), ["1 ID(s)", "003"]),
    "a line without a tab": ("flickr", _edit("Flickr8k.token.txt", "000.png#1\t", "000.png#1 "), ["line 2", "tab"]),
    "an image in two lists": ("flickr", _twice_in_two_lists, ["train", "000.png"]),
    "metadata of a missing picture": ("imagefolder", _drop_a_picture("003.png"), ["1 ID(s)", "003"]),
    "metadata that is cut": ("imagefolder", _cut("metadata.jsonl", 0.9), ["metadata.jsonl", "line", "JSON object"]),
    "a Parquet file that is cut": ("parquet", _cut("*.parquet", 0.5), ["parquet", "cannot be read as Parquet"]),
    "unknown columns": ("parquet", _other_columns, ["'words'", "caption_columns"]),
    "a shard that is cut": ("webdataset", _cut("*train*.tar", 0.4), [".tar", "cut", "end"]),
    "a shard that is cut in a picture": ("webdataset", _cut("*train*.tar", 0.03), [".tar", "cut"]),
    "a sample without a caption": ("webdataset", _without_captions, ["000", "caption", ".json"]),
    "compressed shards": ("webdataset", _compressed, ["no file fits"]),
    "a line that is no JSON": ("jsonl", _edit("captions.jsonl", '{"image": "images/001.png"', '{"image": images/001.png'), ["line 2", "JSON"]),
    "a line without a caption": ("jsonl", _edit("captions.jsonl", '"captions"', '"capt"'), ["line 1", "caption"]),
    "an entry without a caption": ("blip", _edit("captions.json", '"caption"', '"text of"'), ["[0]", "caption"]),
    "an entry without a picture": ("blip", _edit("captions.json", '"image"', '"imagine"'), ["coco_0", "no image"]),
    "a conversation without an answer": ("llava", _edit("llava.json", '"from": "gpt"', '"from": "human"'), ["'no'"]),
    "an empty text file": ("sidecar", _empty("000.txt"), ["000.txt", "caption"]),
    "a text file without a picture": ("sidecar", _drop_a_picture("000.png"), ["000.txt", "picture"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_clear_error(case: str, samples: list[Sample], tmp_path: Path) -> None:
    name, damage, facts = DAMAGE[case]
    captions, images = written(name, samples, tmp_path / name)
    damage(tmp_path / name)
    if case == "a conversation without an answer":  # the next answer is taken
        assert "no" in read_captions(captions).captions["000"]
        return
    with pytest.raises(DataError) as error:
        prepared(tmp_path, captions, images)
    assert [fact for fact in facts if fact not in str(error.value)] == []
    assert len(str(error.value)) < 2000


# --- where pictures are


@pytest.mark.parametrize("name", ["parquet", "webdataset", "imagefolder", "sidecar"])
def test_what_holds_pictures_and_captions_may_be_a_folder(name: str, samples: list[Sample], tmp_path: Path) -> None:
    written(name, samples, tmp_path / name)
    folder = str(tmp_path / name)
    assert len(prepared(tmp_path, folder, folder).train) == 12


def test_captions_of_a_table_and_pictures_of_shards(samples: list[Sample], tmp_path: Path) -> None:
    captions, folder = written("table", samples, tmp_path / "table")
    _, shards = written("webdataset", samples, tmp_path / "shards")
    of_shards = everything(prepared(tmp_path, captions, shards))
    assert_alike(everything(prepared(tmp_path, captions, folder)), of_shards)


def test_a_shard_that_changes_is_read_again(samples: list[Sample], tmp_path: Path) -> None:
    captions, _ = written("webdataset", samples, tmp_path / "shards")
    before = prepared(tmp_path, captions, captions).data["images_digest"]
    other = [Sample(s.name, samples[i - 1].data, s.captions, s.side) for i, s in enumerate(samples)]
    shutil.rmtree(tmp_path / "shards")
    written("webdataset", other, tmp_path / "shards")
    assert prepared(tmp_path, captions, captions).data["images_digest"] != before


def test_shards_are_named_by_braces_and_patterns(samples: list[Sample], tmp_path: Path) -> None:
    captions, _ = written("webdataset", samples, tmp_path / "shards")
    n = len(read_captions(captions).captions)
    assert n == len(samples)
    some = read_captions(f"{tmp_path}/shards/flickr-train-{{000000..000001}}.tar")
    assert len(some.captions) == 12
    assert "WebDataset in 2 shards: 12 train images, 24 captions" in some.summary
    with pytest.raises(DataError, match="no file fits"):
        read_captions(f"{tmp_path}/shards/none-*.tar")


# --- what must not happen in silence


def _shard(path: Path, *members: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_keys_that_begin_again_in_every_shard_are_not_one_picture(tmp_path: Path) -> None:
    for n in range(2):
        _shard(tmp_path / f"{n}.tar", ("0.jpg", b"picture %d" % n), ("0.txt", b"caption %d" % n), (f"only{n}.jpg", b"x"), (f"only{n}.txt", b"y"))  # fmt: skip
    found = read_captions(f"{tmp_path}/*.tar")
    assert sorted(found.captions) == ["only0", "only1"]
    assert ["'0' stands for two pictures" in line for line in found.problems] == [True]


def test_rows_of_parquet_with_one_path_are_one_picture_if_they_hold_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(name: str, rows: list[tuple[bytes, str | None, str]]) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content = [{"image": {"bytes": data, "path": path}, "caption": text} for data, path, text in rows]
        pq.write_table(pa.Table.from_pylist(content), tmp_path / name, row_group_size=1)

    write(
        "a/0000.parquet",
        [(b"1", "x.jpg", "one"), (b"1", "x.jpg", "two"), (b"2", "image.jpg", "a"), (b"3", "image.jpg", "b")],
    )
    found = read_captions(tmp_path / "a")
    assert found.captions == {"x": ["one", "two"]}
    assert ["'image' stands for two pictures" in line for line in found.problems] == [True]
    for side in ("train", "test"):  # as Hugging Face exports them
        write(f"b/default/{side}/0000.parquet", [(b"4", None, f"of {side}")])
    found = read_captions(tmp_path / "b")
    assert sorted(found.captions.values()) == [["of test"], ["of train"]]
    assert sorted(found.splits.values()) == ["test", "train"]


def test_files_of_two_names_and_one_id_are_two_pictures(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("filename,caption\nx.jpg,a dog\nx.png,a cat\ny.jpg,a cow\n")
    found = read_captions(path)
    assert (found.captions, len(found.problems)) == ({"y": ["a cow"]}, 1)


def test_what_the_data_marks_as_test_is_never_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("ID,Sequence,split\na,a dog,test\nb,a cat,\nc,a cow,\nd,two dogs,\ne,one,train\ne,two,test\n")
    found = read_captions(path)
    assert "e" not in found.captions  # of which side it is cannot be known
    assert found.splits == {"a": "test", "b": "train", "c": "train", "d": "train"}
    basic = BasicExperiment(output_folder="x", valid_size=1)
    assert without_test(found.captions, basic, None, found.splits) == (["b", "c", "d"], ["a"])
    path.write_text("ID,Sequence,split\na,a dog,test\nb,a cat,test\n")
    found = read_captions(path)
    with pytest.raises(DataError, match="every image is in the test part"):
        without_test(found.captions, basic, None, found.splits)
    drawn = basic.model_copy(update={"splits": "random"})
    assert without_test(found.captions, drawn, None, found.splits) == (["a", "b"], [])


def test_a_row_that_cannot_be_used_may_be_left_out_of_shards(samples: list[Sample], tmp_path: Path) -> None:
    captions, _ = written("webdataset", samples, tmp_path / "shards")
    _without_captions(tmp_path / "shards")
    assert len(prepared(tmp_path, captions, captions, "globals.basic_experiment.on_bad_data=skip").train) == 11


@pytest.mark.parametrize(
    ("paths", "files", "expected"),
    [
        ({"x": "val/x.jpg"}, ["train/x"], {}),  # a picture of another folder
        ({"x": "val/x.jpg"}, ["data/val/x"], {"x": "data/val/x"}),
        ({"x": "val/x.jpg"}, ["x"], {"x": "x"}),
        ({"a/x": "a/x.jpg", "b/x": "b/x.jpg"}, ["x"], {}),  # which of them it is cannot be known
        ({"a/x": "a/x.jpg", "b/x": "b/x.jpg"}, ["a/x", "b/x"], {"a/x": "a/x", "b/x": "b/x"}),
        ({"1": "2", "2": "1"}, ["1", "2"], {"1": "1", "2": "2"}),  # a column `name` beside IDs that are file names
        ({"17": "sub/x.jpg"}, ["x", "y"], {"17": "x"}),
        ({"x": "x"}, ["a/x", "b/x"], {}),
    ],
)
def test_a_picture_is_the_one_that_is_meant_or_missing(
    paths: dict[str, str], files: list[str], expected: dict[str, str]
) -> None:
    matched = match_pictures(dict.fromkeys(paths), paths, {name: Path(f"{name}.jpg") for name in files})
    assert {i: str(picture) for i, picture in matched.pictures.items()} == {i: f"{n}.jpg" for i, n in expected.items()}
    assert matched.missing.keys() == paths.keys() - expected.keys()


def test_windows_and_find_write_paths_in_their_ways(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text(
        '{"image": "p\\\\x.jpg", "caption": "a"}\n{"image": "./p/x.jpg", "caption": "b"}\n'
    )
    found = read_captions(tmp_path / "captions.jsonl")
    assert (found.captions, found.pictures) == ({"x": ["a", "b"]}, {"x": tmp_path / "p/x.jpg"})


def test_both_text_files_of_a_picture_are_read(tmp_path: Path) -> None:
    for name, text in (("x.jpg", "x"), ("x.txt", "a dog"), ("x.caption", "a cat")):
        (tmp_path / name).write_text(text)
    found = read_captions(tmp_path)
    assert ({key: sorted(texts) for key, texts in found.captions.items()}, found.problems) == (
        {"x": ["a cat", "a dog"]},
        [],
    )


def test_a_pattern_that_fits_one_file_is_that_file(samples: list[Sample], tmp_path: Path) -> None:
    written("jsonl", samples, tmp_path / "j")
    found = read_captions(f"{tmp_path}/j/capt*.jsonl")
    assert found.pictures["000"] == tmp_path / "j/images/000.png"


def test_row_groups_are_kept_while_threads_take_pictures_in_turn(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written("parquet", samples, tmp_path / "p")
    found = read_captions(f"{tmp_path}/p/train-00000-*.parquet")
    assert {
        place[0] for member in found.pictures.values() if isinstance(member, Member) for place in [member.place]
    } == {0, 1}
    opened: list[Path] = []
    real = parquet._opened

    def counted(path: Path) -> Any:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(parquet, "_opened", counted)
    pictures = list(found.pictures.values())
    read = [
        picture_bytes(picture, ImageSpec(8, 8))
        for picture in pictures
        for _ in "ab"
        for picture in (picture, pictures[-1])
    ]
    assert len(opened) == 2
    assert read[0] == samples[0].data


# --- what strangers brought


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nBild;Beschreibung\nx.jpg;a dog\ny.jpg;a cat\n",
        "Katalog 2024;\n\nDateiname;Bildbeschreibung\nx.jpg;a dog\ny.jpg;a cat\n",
        "fichier;légende\nx.jpg;a dog\ny.jpg;a cat\n",
        "file,alt_text,comment\nx.jpg,a dog,seen by M\ny.jpg,a cat,seen by M\n",
    ],
)
def test_tables_of_offices_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(text)
    found = read_captions(tmp_path / "captions.csv")
    assert (found.captions, found.problems) == ({"x": ["a dog"], "y": ["a cat"]}, [])


def test_workbooks_may_begin_with_a_title_or_a_sheet_about_themselves(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    about = book.active
    assert about is not None
    about.append(["Katalog der Sammlung"])
    sheet = book.create_sheet("Bilder")
    for row in (["Sammlung", None], [], ["Bild", "Beschreibung"], ["x.jpg", "a dog"], ["y.jpg", "a cat"]):
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    assert read_captions(tmp_path / "a.xlsx").captions == {"x": ["a dog"], "y": ["a cat"]}


def test_numbered_columns_beside_the_first_are_captions_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,caption,caption_2,caption_3\nx.jpg,a,b,c\n")
    assert read_captions(tmp_path / "a.csv").captions == {"x": ["a", "b", "c"]}
    (tmp_path / "a.jsonl").write_text(
        '{"file_name": "x.jpg", "text": "a", "text_2": "b"}\n{"file_name": "y.jpg", "text": "c"}'
    )
    assert read_captions(tmp_path / "a.jsonl").captions == {"x": ["a", "b"], "y": ["c"]}


def test_entries_with_several_pictures_are_counted(tmp_path: Path) -> None:
    entry = {"image": ["a/1.jpg", "a/2.jpg"], "caption": "the difference"}
    (tmp_path / "a.json").write_text(json.dumps([entry, {"image": "3.jpg", "caption": "a dog"}]))
    found = read_captions(tmp_path / "a.json")
    assert sorted(found.captions) == ["1", "3"]
    assert ["1 entry with several pictures" in note for note in found.notes] == [True]


def test_pictures_in_parquet_come_before_their_names(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": {"bytes": b"picture", "path": None}, "caption": ["a", "b"], "filename": "x.jpg", "split": "test"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read_captions(tmp_path / "a.parquet")
    assert (found.captions, found.splits) == ({"x": ["a", "b"]}, {"x": "test"})
    assert picture_bytes(found.pictures["x"], ImageSpec(8, 8)) == b"picture"
