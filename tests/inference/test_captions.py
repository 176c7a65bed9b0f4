"""`img2seq caption`, `img2seq evaluate` and the Captioner, on a trained tiny run."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import children
from conftest import SHARED, img2seq
from img2seq import Captioner
from img2seq.errors import DataError
from img2seq.metrics import java
from img2seq.model.encoder import ImageEncoder
from img2seq.model.onnx_encoder import accelerate
from img2seq.run.folder import read_json
from img2seq.run.tables import read_table

METRIC_REFS = SHARED / "data/metric_refs"


def test_every_kind_of_source_gives_the_same_caption(run: Path, images: Path) -> None:
    path = images / "005.png"
    captioner = Captioner.load(run)
    picture = Image.open(path)
    sources: list[Any] = [path, str(path), path.read_bytes(), picture, np.asarray(picture)]
    found = captioner.caption(sources)
    assert len({caption.text for caption in found}) == 1
    assert found[0].text == captioner.caption(path).text


def test_a_caption_says_how_sure_the_model_is(run: Path, images: Path) -> None:
    caption = Captioner.load(run).caption(images / "001.png", beam_size=4, n_best=3)
    assert caption.tokens[-1] == "<eos>"
    assert len(caption.tokens) == len(caption.token_probabilities)
    assert caption.log_probability == pytest.approx(sum(caption.token_log_probabilities))
    assert all(0 < p <= 1.000001 for p in caption.token_probabilities)
    assert len({c.text for c in (caption, *caption.alternatives)}) == 3


def test_the_captions_follow_the_pictures(run: Path, images: Path) -> None:
    names = ["red", "green", "blue", "black"]
    captions = Captioner.load(run).caption([images / f"{i:03}.png" for i in range(8)])
    right = sum(names[i % 4] in caption.text for i, caption in enumerate(captions))
    assert right >= 6


def test_onnx_runtime_gives_the_same_captions(
    run: Path, images: Path, tmp_path: Path, speed_ups_on: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs img2seq[fast]")
    found, losses, used = [], [], []
    for faster in (True, False):

        def prepare(encoder: ImageEncoder, faster: bool = faster) -> bool:
            used.append(faster and accelerate(encoder))
            return used[-1]

        monkeypatch.setattr("img2seq.inference.torch_model.accelerate", prepare)
        output = tmp_path / f"{faster}"
        output.mkdir()
        assert img2seq("caption", run, images, "--output", output / "captions.jsonl", "--method", "greedy") == 0
        assert img2seq("evaluate", run, "--output", output / "scores") == 0
        captions = [json.loads(line)["caption"] for line in (output / "captions.jsonl").read_text().splitlines()]
        found.append((captions, read_json(output / "scores/captions.json")))
        losses.append(read_json(output / "scores/metrics.json")["loss"])
    assert used == [True, True, False, False]
    assert found[0] == found[1]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_an_unknown_beginning_is_an_error(run: Path, images: Path) -> None:
    with pytest.raises(DataError, match="does not know 'zebra'"):
        Captioner.load(run).caption(images / "001.png", beginning="a zebra")


def test_one_file_prints_its_caption_alone(run: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert img2seq("caption", run, images / "001.png", "--beginning", "there is") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("there is")


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "json"])
def test_a_folder_with_a_broken_image_captions_the_rest(ending: str, run: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes((images / f"{i:03}.png").read_bytes())
    (folder / "2.png").write_bytes(b"no image")
    output = tmp_path / f"out.{ending}"
    assert img2seq("caption", run, folder, "--output", output, "--batch-size", "2") == 1
    text = output.read_text()
    match ending:
        case "json":
            assert [entry["image_id"] for entry in json.loads(text)] == ["0", "1", "3"]
        case "jsonl":
            entries = [json.loads(line) for line in text.splitlines()]
            assert ["error" in entry for entry in entries] == [False, False, True, False]
        case "csv":
            assert [Path(row["path"]).stem for row in csv.DictReader(text.splitlines())] == ["0", "1", "3"]
        case _:
            assert [Path(line.split("\t")[0]).stem for line in text.splitlines()] == ["0", "1", "3"]


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "json"])
def test_an_interrupted_output_is_gone_on_with(ending: str, run: Path, images: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    assert img2seq("caption", run, images, "--output", whole, "--batch-size", "4") == 0
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])  # in the middle of a line
    assert img2seq("caption", run, images, "--output", cut) == 2  # never overwritten unasked
    assert img2seq("caption", run, images, "--output", cut, "--resume") == 0
    assert cut.read_bytes() == data


def test_patterns_lists_and_standard_input_name_images(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = images / "list.csv"
    table.write_text("path\n003.png\n004.png\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{images / '005.png'}\n"))
    output = tmp_path / "out.jsonl"
    try:
        assert img2seq("caption", run, images / "00[12].png", table, "-", "--output", output) == 0
    finally:
        table.unlink()
    names = [Path(json.loads(line)["path"]).name for line in output.read_text().splitlines()]
    assert names == ["001.png", "002.png", "003.png", "004.png", "005.png"]
    assert img2seq("caption", run, tmp_path / "nothing*.png") == 2


@pytest.fixture
def odd_names(images: Path, tmp_path: Path) -> list[Path]:
    """Return the paths of four images; two have names that are not UTF-8, one of these is broken."""
    if sys.platform != "linux":
        pytest.skip("only Linux has file names of any bytes")
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [b"0.png", b"caf\xc3\xa9.png", b"caf\xe9.png", b"\xff\xfe broken.png"]
    paths = [folder / os.fsdecode(name) for name in names]
    for number, path in enumerate(paths[:3]):
        shutil.copy(images / f"{number:03}.png", path)
    paths[3].write_bytes(b"no image")
    return paths


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "json"])
def test_names_that_are_not_utf8_are_written_so_that_they_can_be_read_back(
    ending: str, run: Path, odd_names: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, folder = tmp_path / f"out.{ending}", odd_names[0].parent
    arguments = ("caption", run, folder, "--output", output, "--batch-size", "2")
    assert img2seq(*arguments) == 1
    assert "broken.png" in capsys.readouterr().err
    data = output.read_bytes()
    match ending:
        case "json":
            found = [folder / f"{entry['image_id']}.png" for entry in json.loads(data)]
        case "jsonl":
            entries = [json.loads(line) for line in data.splitlines()]
            assert [Path(entry["path"]) for entry in entries if "error" in entry] == odd_names[3:]
            found = [Path(entry["path"]) for entry in entries if "error" not in entry]
        case "csv":
            found = [Path(row["path"]) for row in csv.DictReader(os.fsdecode(data).splitlines())]
        case _:
            found = [Path(line.split("\t")[0]) for line in os.fsdecode(data).splitlines()]
    assert sorted(found) == sorted(odd_names[:3])
    for length in range(len(data) // 2, len(data) - len(data) // 4, 11):  # cut in the midst of odd names, too
        output.write_bytes(data[:length])
        assert img2seq(*arguments, "--resume") == 1
        assert output.read_bytes() == data


def test_names_that_are_not_utf8_go_through_standard_input_and_output(
    run: Path, odd_names: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = b"\n".join(os.fsencode(path) for path in odd_names)
    monkeypatch.setenv(
        "PYTHONIOENCODING", "utf-8:strict"
    )  # as in the locale of most users, not in that of most servers
    done = children.command("caption", run, "-", data=names)
    assert done.returncode == 1
    assert [Path(os.fsdecode(line.split(b"\t")[0])) for line in done.stdout.splitlines()] == odd_names[:3]
    assert b"Traceback" not in done.stderr
    assert b"broken.png" in done.stderr


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000, "a/" * 3000, "\ud800.png", ""], ids=ascii)
def test_a_path_that_can_be_none_is_an_image_that_failed(
    name: str, run: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{images / '001.png'}\n{name}.png\n"))
    assert img2seq("caption", run, "-") == 1
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 1
    assert "failed: " in found.err


@pytest.mark.java
def test_evaluating_a_run_writes_scores_captions_and_a_page(
    own_run: Path,
    finished_runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert img2seq("evaluate", own_run, "--beam-size", "3") == 0
    folder = own_run / "evaluation"
    metrics = read_json(folder / "metrics.json")
    assert {"bleu_1", "bleu_4", "rouge_l", "cider_d", "loss", "perplexity"} <= set(metrics)
    constant = metrics["most_frequent_caption"]
    assert constant["cider_d"] + constant["gain"] == pytest.approx(metrics["cider_d"])
    shown = capsys.readouterr().out
    assert constant["says"] in shown
    assert metrics["loss"] == pytest.approx(read_json(own_run / "validation/summary.json")["valid_loss"], abs=1e-4)
    low, high = metrics["intervals_95"]["bleu_1"]
    assert low <= metrics["bleu_1"] <= high
    assert metrics["bleu_1"] > 0.5
    ids = read_json(own_run / "split.json")["valid"]
    assert [entry["image_id"] for entry in read_json(folder / "captions.json")] == ids
    assert [row["image_id"] for row in read_table(folder / "per_image.csv")] == ids
    page = (folder / "report.html").read_text()
    assert page.count('<article class="card"') == len(ids)
    assert "data:image/jpeg" in page
    assert "CIDEr-D" in shown
    assert "the most frequent training caption" in page
    # the same results file, scored without the model, gives the same scores (METEOR, which is not compared, is not computed again)
    monkeypatch.setattr(java, "meteor", not_now)
    assert (
        img2seq(
            "evaluate",
            "--results",
            folder / "captions.json",
            "--references",
            _own_references(finished_runs[1]),
            "--output",
            tmp_path / "again",
        )
        == 0
    )
    again = read_json(tmp_path / "again/metrics.json")
    assert {k: again[k] for k in ("bleu_4", "rouge_l", "cider_d")} == {
        k: metrics[k] for k in ("bleu_4", "rouge_l", "cider_d")
    }
    # and the comparison takes the scores in
    assert img2seq("compare", finished_runs[0], own_run, "--output", tmp_path / "compared") == 0
    assert read_json(tmp_path / "compared/compare.json")["runs"][1]["scores"]["bleu_4"] == metrics["bleu_4"]


def not_now(*texts: object) -> None:
    raise java.NotComputed("not a second time")


def _own_references(run: Path) -> Path:
    ids = set(read_json(run / "split.json")["valid"])
    path = run.parent / "references.csv"
    with (run.parent / "captions.csv").open() as source, path.open("w") as target:
        for line in source:
            if line.split(",")[0] in {*ids, "ID"}:
                target.write(line)
    return path


def test_another_data_set_can_be_evaluated_and_must_fit(run: Path, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("ID,Sequence\n000,a red ball .\n001,a green ball .\n")
    assert img2seq("evaluate", run, "--captions", table, "--images", images, "--output", tmp_path / "e") == 0
    assert read_json(tmp_path / "e/metrics.json")["images"] == 2
    table.write_text("ID,Sequence\n000,a red ball .\nnope,a green ball .\n")
    assert img2seq("evaluate", run, "--captions", table, "--images", images, "--output", tmp_path / "f") == 2


@pytest.mark.skipif(not METRIC_REFS.is_dir(), reason="needs ../shared/data/metric_refs, which is not here")
def test_published_scores_are_reproduced_from_a_results_file(tmp_path: Path) -> None:
    arguments = (
        "--results",
        METRIC_REFS / "clipscore_good_captions.json",
        "--references",
        METRIC_REFS / "clipscore_refs.json",
    )
    assert img2seq("evaluate", *arguments, "--output", tmp_path) == 0
    metrics = read_json(tmp_path / "metrics.json")
    published = {
        "bleu_1": 0.6667,
        "bleu_2": 0.4899,
        "bleu_3": 0.3469,
        "bleu_4": 0.0,
        "rouge_l": 0.4280,
        "cider_d": 0.5637,
    }
    assert {name: metrics[name] for name in published} == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--results", "x.json"],
        ["RUN", "--results", "x.json", "--references", "y.csv"],
        ["RUN", "--captions", "x.csv"],
        ["RUN", "--beam-size", "0"],
        ["RUN", "--n-best", "9"],
    ],
    ids=str,
)
def test_wrong_calls_of_evaluate_are_one_error(
    arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert img2seq("evaluate", *(str(run) if a == "RUN" else a for a in arguments)) == 2
    assert capsys.readouterr().err.startswith("error: ")
