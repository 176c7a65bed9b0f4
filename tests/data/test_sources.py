"""Sources: every format gives the same records, found by what a file holds, and trains the same model."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from img2seq.cli import main as cli
from img2seq.config.load import ConfigFiles, load
from img2seq.data.csv_rows import Row, row_problem
from img2seq.data.sources import read as reading
from img2seq.data.sources.content import Content
from img2seq.data.sources.read import read_captions, read_source
from img2seq.data.sources.source import Format, Record
from img2seq.errors import DataError, ScoreError
from img2seq.metrics.formats import read_pair, read_references
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.training.loop import train

CAPTIONS = {"000000000139": ["a dog .", "a brown dog ."], "000000000285": ["a bear ."]}


def as_table(captions: dict[str, list[str]]) -> str:
    return "ID,Sequence\n" + "".join(f'{i},"{text}"\n' for i, texts in captions.items() for text in texts)


def as_coco(captions: dict[str, list[str]], *, file_name: str = "{}.jpg", first: int = 1) -> dict[str, Any]:
    numbers = {name: first + place for place, name in enumerate(captions)}
    return {
        "info": {},
        "images": [{"id": number, "file_name": file_name.format(name)} for name, number in numbers.items()],
        "annotations": [
            {"image_id": numbers[name], "id": 7, "caption": text} for name, texts in captions.items() for text in texts
        ],
    }


def written(folder: Path, content: Any, name: str = "captions") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["captions", "captions.csv", "captions.JSON", "captions.txt"])
@pytest.mark.parametrize("before", ["", "\ufeff"])
@pytest.mark.parametrize("form", ["table", "COCO", "lists"])
def test_the_format_is_found_from_what_a_file_holds(form: str, before: str, name: str, tmp_path: Path) -> None:
    content = {"table": as_table(CAPTIONS), "COCO": json.dumps(as_coco(CAPTIONS)), "lists": json.dumps(CAPTIONS)}[form]
    path = written(tmp_path, before + content, name)
    assert form in read_source(path).format.name
    assert read_captions(path).captions == CAPTIONS


def test_records_come_one_by_one_and_may_be_read_again(tmp_path: Path) -> None:
    rows = "000,a dog\n001\n002,a cat, asleep\n000,a brown dog\n"
    source = read_source(written(tmp_path, f"ID,Sequence\n{rows}"))
    for _ in range(2):
        records = source.records()
        assert next(records) == Record("000", ("a dog",))
        assert source.problems == []
        assert list(records) == [Record("000", ("a brown dog",))]
        assert [problem.split(":")[0] for problem in source.problems] == ["line 3", "line 4"]


def test_further_columns_and_the_numbers_of_coco_are_kept(tmp_path: Path) -> None:
    table = read_source(written(tmp_path, "url,ID,Sequence,split\nu,000,a dog,train\nv,001,a cat\n"))
    assert [dict(record.columns) for record in table.records()] == [{"url": "u", "split": "train"}, {"url": "v"}]
    coco = read_source(written(tmp_path, as_coco(CAPTIONS, first=139)))
    records = list(coco.records())
    assert [record.image_id for record in records] == ["000000000139.jpg", "000000000139.jpg", "000000000285.jpg"]
    assert [coco.own_ids(record) for record in records] == [[139], [139], [140]]


def test_a_coco_image_is_named_by_its_file(tmp_path: Path) -> None:
    def ids(content: Any) -> list[str]:
        return list(read_captions(written(tmp_path, content)).captions)

    assert ids(as_coco(CAPTIONS, file_name="val2017/{}.jpg")) == list(CAPTIONS)
    clashing = as_coco(CAPTIONS)
    for image, folder in zip(clashing["images"], "ab", strict=True):
        image["file_name"] = f"{folder}/1.jpg"
    assert ids(clashing) == ["a/1", "b/1"]  # two pictures, which no name without a folder tells apart
    without = as_coco(CAPTIONS)
    for image in without["images"]:
        del image["file_name"]
    assert ids(without) == ["1", "2"]
    del without["images"]
    assert ids(without) == ["1", "2"]


def test_an_annotation_of_an_unknown_image_is_named(tmp_path: Path) -> None:
    content = as_coco(CAPTIONS)
    content["annotations"].append({"image_id": 9, "caption": "a cat ."})
    found = read_captions(written(tmp_path, content))
    assert found.captions == CAPTIONS
    assert [("annotations[3]" in line, "9" in line) for line in found.problems] == [(True, True)]


def test_a_format_is_added_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: Content, problems: list[str]) -> Iterator[Record]:
        for path in sorted(content.path.glob("*.txt")):
            yield Record(path.stem, tuple(path.read_text().splitlines()), split="train")

    sidecars = Format("texts", "a folder of text files", lambda content: content.path.is_dir(), read)
    with pytest.raises(DataError, match="found a folder"):
        read_source(tmp_path)
    monkeypatch.setattr(reading, "FORMATS", [*reading.FORMATS, sidecars])
    for name, texts in CAPTIONS.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    assert read_captions(tmp_path).captions == CAPTIONS
    assert read_references(tmp_path) == CAPTIONS
    assert read_captions(written(tmp_path, as_table(CAPTIONS))).captions == CAPTIONS


# --- training and scoring


@pytest.fixture(params=["COCO", "lists"])
def other_format(request: pytest.FixtureRequest, tiny: Path) -> Path:
    """Return the captions of the tiny data set in another format, the images of COCO under numbers of their own."""
    captions = read_captions(tiny / "captions.csv").captions
    coco = as_coco(captions, file_name="train2017/{}.png", first=500)
    return written(tiny, coco if request.param == "COCO" else captions, "captions_train2017.json")


def trained(folder: Path, source: Path, name: str) -> RunFolder:
    options = {
        "globals.basic_experiment.output_folder": folder / name,
        "outputs.captions.output_info.output_source": source,
    }
    overrides = [f"{key}={value}" for key, value in options.items()]
    return train(load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides))


def test_a_run_is_the_same_from_every_format(
    other_format: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = trained(tiny, tiny / "captions.csv", "first"), trained(tiny, other_format, "second")
    assert read_json(first.split) == read_json(second.split)
    losses = [[row["loss"] for row in read_table(run.path / "history_train.csv")] for run in (first, second)]
    assert losses[0] == losses[1]
    assert first.tokenizer.read_bytes() == second.tokenizer.read_bytes()

    scores = []
    for name in ("captions.csv", other_format.name):
        arguments = [
            "--captions",
            str(tiny / name),
            "--images",
            str(tiny / "images"),
            "--output",
            str(tiny / f"of {name}"),
        ]
        assert cli.run(["evaluate", str(second.path), *arguments]) == 0
        scores.append(read_json(tiny / f"of {name}/metrics.json") | {"data": "", "made_from": {}})
    assert scores[0] == scores[1]

    capsys.readouterr()
    assert cli.run(["data", "check", str(other_format), str(tiny / "images"), "--min-freq", "1"]) == 0
    assert "48 of 24 images" in capsys.readouterr().out


def test_a_row_that_cannot_be_used_stops_training_or_is_left_out(tiny: Path) -> None:
    captions: dict[str, Any] = dict(read_captions(tiny / "captions.csv").captions)
    captions["003"] = "a string where a list is expected"
    path = written(tiny, captions, "captions.json")
    with pytest.raises(DataError, match=r"1 row\(s\) of .*captions\.json cannot be used:\n  image 003: "):
        trained(tiny, path, "run")
    overrides = [f"outputs.captions.output_info.output_source={path}", "globals.basic_experiment.on_bad_data=skip"]
    overrides.append("globals.basic_experiment.batch_size=64")
    run = train(load(ConfigFiles(experiment=str(tiny / "experiment.yaml")), overrides))
    assert "image 003" in run.data_report.read_text()


def test_a_run_whose_ids_were_kept_in_another_unicode_form_is_evaluated(tiny: Path) -> None:
    captions = read_captions(tiny / "captions.csv").captions
    for image_id in captions:
        (tiny / f"images/{image_id}.png").rename(tiny / f"images/caf\u0065\u0301{image_id}.png")
    renamed = {f"caf\u0065\u0301{image_id}": texts for image_id, texts in captions.items()}
    run = trained(tiny, written(tiny, renamed, "captions.json"), "run")
    split = read_json(run.split)
    assert split["valid"][0].startswith("caf\u00e9")
    before = {side: [unicodedata.normalize("NFD", image_id) for image_id in ids] for side, ids in split.items()}
    run.split.write_text(json.dumps(before))
    (run.path / "digests.json").unlink()
    assert cli.run(["evaluate", str(run.path), "--output", str(tiny / "scores")]) == 0


def test_results_with_other_ids_of_the_same_images_are_matched_and_it_is_said(tmp_path: Path) -> None:
    references = written(tmp_path, as_coco(CAPTIONS, first=139), "references.json")
    expected = dict(zip(("139", "140"), CAPTIONS.values(), strict=True))
    for names in (CAPTIONS, [f"{name}.jpg" for name in CAPTIONS]):
        results = written(tmp_path, dict.fromkeys(names, "a dog"), "results.json")
        captions, truths, notes = read_pair(results, references)
        assert (captions, truths) == (dict.fromkeys(expected, "a dog"), expected)
        assert ["name of the file" in note and "'139'" in note for note in notes] == [True]
    results = written(tmp_path, [{"image_id": n, "caption": "a dog"} for n in (139, 140)], "results.json")
    assert read_pair(results, references)[1:] == (expected, [])
    results = written(tmp_path, dict.fromkeys(["000000000139", "000000000286"], "a dog"), "results.json")
    with pytest.raises(ScoreError, match=r"'000000000139' is the name of the file of image 139 in "):
        read_pair(results, references)


# --- rows


@pytest.mark.parametrize(
    ("values", "is_odd"),
    [
        (["img00", "a dog\nand a cat, asleep"], False),
        (["img00", "a dog\nimg01,a cat"], True),
        (["img00", "a dog\n2 dogs, one ball"], False),
        (["img00", "a dog\nrunning, jumping"], False),
        (["anna", "a dog\nbert,a cat"], False),  # one line of words may be prose
        (["anna", "a dog\nknown,a cat"], True),
        (["anna", "a dog\nbert,a cat\ncora,a ball"], True),
        (["1000268201_693b08cb0e.jpg", "a dog\n1001773457_577c3a7d70.jpg,a cat"], True),
        (["photos/a1.png", "a dog\nphotos/b2.png,a cat"], True),
        (["img00", "a\n\nb\n\nc"], False),
    ],
)
def test_line_breaks_are_told_from_swallowed_rows(values: list[str], is_odd: bool) -> None:
    row = Row(3, values, n_lines=values[1].count("\n") + 1, raw="")
    assert bool(row_problem(row, 2, 0, {"known"})) == is_odd
