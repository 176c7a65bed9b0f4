"""Lists of pictures for `img2seq caption`: captions of any format, shards, with the ids that they have themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from conftest import img2seq
from img2seq.data.image import ImageSpec
from img2seq.data.picture import picture_bytes
from img2seq.inference.caption_paths import Listed, expand
from img2seq.run.folder import read_json
from img2seq.run.tables import read_table
from in_formats import FORMATS, Sample


@pytest.fixture
def samples(images: Path) -> list[Sample]:
    files = sorted(images.glob("*.png"))[:6]
    return [Sample(path.name, path.read_bytes(), ("a dog", "a brown dog"), "train") for path in files]


@pytest.mark.parametrize("name", ["table", "workbook", "coco", "karpathy", "imagefolder", "parquet", "webdataset", "jsonl", "blip", "llava"])  # fmt: skip
def test_every_format_is_a_list_of_its_pictures(name: str, samples: list[Sample], tmp_path: Path) -> None:
    captions, images = FORMATS[name](samples, tmp_path)
    lists = sorted((tmp_path / "train").glob("metadata.*")) if name == "imagefolder" else [captions]
    found = list(expand(map(str, lists), io.StringIO(), images=str(images), warn=print))
    assert all(isinstance(path, Listed) for path in found)
    spec = ImageSpec(32, 32)
    pictures = [picture_bytes(path.picture, spec) for path in found if isinstance(path, Listed)]
    assert sorted(pictures) == sorted(sample.data for sample in samples)


def test_results_have_the_ids_of_the_list(run: Path, samples: list[Sample], images: Path, tmp_path: Path) -> None:
    captions, _ = FORMATS["coco"](samples, tmp_path)
    results = tmp_path / "results.json"
    assert img2seq("caption", run, captions, "--images", images, "--output", results) == 0
    assert [entry["image_id"] for entry in read_json(results)] == [100, 101, 102, 103, 104, 105]
    whole = results.read_bytes()
    results.write_bytes(whole[: len(whole) // 2])
    assert img2seq("caption", run, captions, "--images", images, "--output", results, "--resume") == 0
    assert results.read_bytes() == whole
    assert img2seq("evaluate", "--results", results, "--references", captions, "--output", tmp_path / "scores") == 0


def test_images_of_coco_without_captions_are_a_list(run: Path, samples: list[Sample], tmp_path: Path) -> None:
    captions, _ = FORMATS["coco"](samples, tmp_path)
    content = read_json(Path(captions))
    content["images"] = [{**image, "file_name": f"images/{image['file_name']}"} for image in content["images"]]
    del content["annotations"]
    Path(captions).write_text(json.dumps(content))
    assert img2seq("caption", run, captions, "--output", tmp_path / "captions.csv") == 0
    rows = read_table(tmp_path / "captions.csv")
    assert [row["path"] for row in rows] == [str(tmp_path / "images" / sample.name) for sample in samples]


def test_pictures_in_shards_get_the_captions_of_the_same_files(
    run: Path, samples: list[Sample], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern, _ = FORMATS["webdataset"](samples, tmp_path)
    said = []
    for paths in ([images / sample.name for sample in samples], [pattern]):
        assert img2seq("caption", run, *paths, "--format", "jsonl") == 0
        said.append([json.loads(line)["caption"] for line in capsys.readouterr().out.splitlines()])
    assert said[0] == said[1]


def test_an_evaluation_of_a_run_writes_the_ids_of_its_source(run: Path, images: Path, tmp_path: Path) -> None:
    files = sorted(images.glob("*.png"))[:6]
    samples = [Sample(path.name, path.read_bytes(), ("a dog", "a cat"), "test") for path in files]
    captions, folder = FORMATS["karpathy"](samples, tmp_path)
    data: list[str | Path] = ["--captions", captions, "--images", folder]
    for split in (["--split", "test"], []):  # all of it is one side
        output = tmp_path / f"scores{len(split)}"
        assert img2seq("evaluate", run, *data, *split, "--output", output) == 0
        assert [entry["image_id"] for entry in read_json(output / "captions.json")] == [100, 101, 102, 103, 104, 105]
        assert read_json(output / "metrics.json")["images"] == 6
    assert img2seq("evaluate", run, *data, "--split", "train", "--output", tmp_path / "none") == 2
    # another side is another evaluation, which replaces nothing unasked
    content = read_json(Path(captions))
    content["images"][0]["split"] = "train"
    Path(captions).write_text(json.dumps(content))
    assert img2seq("evaluate", run, *data, "--split", "train", "--output", tmp_path / "one") == 0
    assert img2seq("evaluate", run, *data, "--split", "test", "--output", tmp_path / "one") == 2
    assert img2seq("evaluate", run, *data, "--output", tmp_path / "none") == 2  # which side is meant is not said


def test_columns_of_a_list_can_be_named(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(images.glob("*.png"))[:2]
    (tmp_path / "list.csv").write_text(
        "\n".join(["Inventar;Werk", *(f"{i};{path.name}" for i, path in enumerate(files))])
    )
    line: list[str | Path] = ["caption", run, tmp_path / "list.csv", "--images", images]
    assert img2seq(*line) == 2
    assert "--image-column" in capsys.readouterr().err
    assert img2seq(*line, "--image-column", "Werk") == 0
    assert [row.split("\t")[0] for row in capsys.readouterr().out.splitlines()] == [str(path) for path in files]
