"""What `img2seq caption` takes and where it writes: standard input, lists, folders, endings, and what is found before the work."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import children
from conftest import img2seq
from img2seq import Captioner
from img2seq.config.decoding import Decoding
from img2seq.errors import ConfigError
from img2seq.generation import side_by_side
from img2seq.generation.search import search
from img2seq.generation.step import Step
from img2seq.inference.from_run import longest_trained
from img2seq.progress import Announcer


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model is loaded: what is wrong is found before."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Captioner, "load", load)


# --- outputs

WRONG_OUTPUTS = {
    "--output x.xlsx": ["'x.xlsx'", ".txt, .jsonl, .csv or .json"],
    "--output x.jsn": ["'x.jsn'", "Did you mean '.json'?"],
    "--output x.json --n-best 2": ["--n-best", "text, jsonl or csv", "coco"],
    "--output x.txt --probabilities": ["--probabilities", "jsonl or csv", "text"],
    "--probabilities": ["--probabilities", "jsonl or csv", "text"],
    "--output x.csv --integer-ids": ["--integer-ids", "coco", "csv"],
    "--resume": ["--resume", "--output"],
    "--output - --resume": ["--resume", "--output"],
    "--output missing/x.csv": ["missing/x.csv"],
    "--output missing/x.csv --resume": ["missing/x.csv"],
    "--output /dev/null/x.csv": ["/dev/null/x.csv"],
    "--output folder.csv": ["folder.csv", "a folder"],
    "--output folder.csv --resume": ["folder.csv", "a folder"],
    "--output there.csv": ["there.csv", "--resume"],
    "--output there.csv --resume": ["there.csv", "line 1", "'path,caption\\n'", "'some'"],
}


@pytest.mark.parametrize("arguments", WRONG_OUTPUTS)
def test_an_output_that_cannot_be_is_found_before_the_work(
    arguments: str, run: Path, images: Path, tmp_path: Path, never_loaded: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("some")
    assert img2seq("caption", run, images, *arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert [fact for fact in WRONG_OUTPUTS[arguments] if fact not in error] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "some"


def test_a_run_that_cannot_be_loaded_leaves_no_output_behind(images: Path, tmp_path: Path) -> None:
    assert img2seq("caption", tmp_path / "no run", images, "--output", tmp_path / "x.csv") == 2
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("name", "begins"), [("X.CSV", "path,caption\n"), ("X.JSON", "[\n"), ("x.JsonL", "{"), ("x", "/"), ("x.TXT", "/")]
)
def test_endings_in_any_case_decide_the_form(name: str, begins: str, run: Path, images: Path, tmp_path: Path) -> None:
    assert img2seq("caption", run, images / "000.png", "--output", tmp_path / name) == 0
    assert (tmp_path / name).read_text().startswith(begins)


def test_a_minus_is_standard_output(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert img2seq("caption", run, images / "000.png", "--output", "-", "--format", "csv") == 0
    assert [row["path"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == [str(images / "000.png")]
    assert not list(tmp_path.iterdir())


def test_all_captions_that_were_asked_for_are_written(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Captioner.load(run).caption(images / "000.png", n_best=3)
    best, others = one.text, [other.text for other in one.alternatives]
    assert len({best, *others}) == 3
    assert img2seq("caption", run, images / "000.png", "--n-best", "3") == 0
    assert capsys.readouterr().out.splitlines() == [best, *others]
    paths = [images / "000.png", images / "001.png"]
    for form in ("csv", "text", "jsonl"):
        assert img2seq("caption", run, *paths, "--n-best", "3", "--format", form) == 0
        out = capsys.readouterr().out
        if form == "csv":
            row = next(csv.DictReader(out.splitlines()))
            assert [row["caption"], row["caption_2"], row["caption_3"]] == [best, *others]
        elif form == "text":
            assert out.splitlines()[0].split("\t") == [str(paths[0]), best, *others]
        else:
            assert [entry["caption"] for entry in json.loads(out.splitlines()[0])["alternatives"]] == others


def test_two_pictures_with_one_name_are_one_entry_and_an_error(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("a", "1.png"), ("b", "1.png"), ("b", "0001.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(images / "000.png", tmp_path / folder / name)
    arguments: list[str | Path] = ["caption", run, tmp_path / "a", tmp_path / "b", "--output"]
    assert img2seq(*arguments, tmp_path / "x.json") == 1
    assert [entry["image_id"] for entry in json.loads((tmp_path / "x.json").read_text())] == ["1", "0001"]
    error = capsys.readouterr().err
    assert str(tmp_path / "a/1.png") in error
    assert str(tmp_path / "b/1.png") in error
    assert img2seq(*arguments, tmp_path / "y.json", "--integer-ids") == 1
    assert [entry["image_id"] for entry in json.loads((tmp_path / "y.json").read_text())] == [1]
    assert img2seq(*arguments, tmp_path / "x.csv") == 0


def test_it_ends_with_how_many_how_fast_and_where(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    totals: list[int] = []
    bar = Announcer.bar

    def seen(self: Announcer, what: str, total: int) -> Any:
        totals.append(total)
        return bar(self, what, total)

    monkeypatch.setattr(Announcer, "bar", seen)
    assert img2seq("caption", run, images, "--output", tmp_path / "x.csv") == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert [
        fact for fact in ("32 captioned", "0 failed", "images/s", str(tmp_path / "x.csv")) if fact not in last
    ] == []
    assert img2seq("caption", run, images, "--output", tmp_path / "x.csv", "--resume") == 0
    assert "32 were there already" in capsys.readouterr().err.splitlines()[-1]
    assert totals == [32, 32]


BAR = """
import sys
from img2seq.progress import Announcer
with Announcer(bars=sys.stderr.isatty()).bar("captioning", 50) as advance:
    advance(32)
"""


@pytest.mark.parametrize("columns", [0, 100])
def test_a_terminal_of_any_width_shows_a_bar(columns: int) -> None:
    """Terminals in containers may claim to be 0 columns wide."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    subprocess.run([sys.executable, "-c", BAR], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "captioning" in shown
    assert "/50" in shown
    assert "images/s" in shown


# --- inputs


def by_pipe(run: Path, data: bytes, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return children.command("caption", run, *arguments, data=data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_picture_is_told_from_a_list_of_paths(form: str, images: Path) -> None:
    from PIL import Image

    from img2seq.inference.caption_paths import picture_in

    buffer = io.BytesIO()
    Image.open(images / "000.png").save(buffer, form)
    buffer.seek(0)
    assert picture_in(io.TextIOWrapper(io.BufferedReader(buffer))) == buffer.getvalue()
    for text in ("BMW.jpg\n", "P5 a.png\n", "GIF.gif\n", "II.tif\n", "RIFF.webp\n", "\n", ""):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode())))
        assert picture_in(stream) is None
        assert stream.read() == text


def test_a_picture_on_standard_input_is_captioned(run: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert img2seq("caption", run, images / "005.png") == 0
    expected = capsys.readouterr().out
    done = by_pipe(run, (images / "005.png").read_bytes(), "-")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, expected, b"")


@pytest.mark.parametrize(("what", "closed"), [("photo.png", 1), ("-", 0), ("photo.png", 2)])
def test_closed_streams_are_no_error(what: str, closed: int, run: Path, images: Path) -> None:
    """Also tried where Python itself begins so: `test_closed_standard_streams_end_no_verb`."""
    done = children.command("caption", run, what.replace("photo.png", str(images / "000.png")), closed=(closed,))
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (closed == 2)


def test_bytes_that_are_no_picture_are_one_error(run: Path) -> None:
    done = by_pipe(run, b"\0\0\0\x18ftypheic\n" + b"\xff\0\n" * 870, "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1
    assert b"standard input" in done.stderr


def test_lines_of_paths_may_end_as_on_windows_and_begin_at_home(
    run: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(images))
    done = by_pipe(run, b"\xef\xbb\xbf~/000.png\r\n\r\n~/001.png\r\n", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == [
        str(images / n) for n in ("000.png", "001.png")
    ]


def test_an_output_may_be_at_home(run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert img2seq("caption", run, images / "000.png", "--output=~/x.csv") == 0
    assert (tmp_path / "x.csv").exists()


def test_a_table_of_paths_is_one_however_it_is_written(
    run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(images / "000.png", tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(images))
    (tmp_path / "LIST.CSV").write_text("path\na.png\n~/001.png\n")
    assert img2seq("caption", run, tmp_path / "LIST.CSV") == 0
    found = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert found == [str(tmp_path / "a.png"), str(images / "001.png")]


@pytest.mark.parametrize(
    ("text", "facts"),
    [("title,caption\na.png,x\n", ["'title', 'caption'", "id_column"]), ("ID,Sequence\n000,x\n", ["--images"])],
)
def test_a_table_without_paths_is_found_before_the_work(
    text: str,
    facts: list[str],
    run: Path,
    images: Path,
    tmp_path: Path,
    never_loaded: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "list.csv").write_text(text)
    assert img2seq("caption", run, images, tmp_path / "list.csv") == 2
    error = capsys.readouterr().err
    assert [fact for fact in [str(tmp_path / "list.csv"), *facts] if fact not in error] == []


def test_pictures_that_are_not_read_are_counted(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("IMG_1.JXL", "deeper/IMG_2.jxl", "x.psd", "notes.txt", "._x.jxl"):
        (tmp_path / name).write_bytes(b"x")
    assert img2seq("caption", run, tmp_path) == 2
    error = capsys.readouterr().err
    assert [fact for fact in (str(tmp_path), "2 .jxl", "1 .psd", ".jpg") if fact not in error] == []
    shutil.copy(images / "000.png", tmp_path / "a.png")
    assert img2seq("caption", run, tmp_path) == 0
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 1
    assert [fact for fact in (str(tmp_path), "2 .jxl", "1 .psd") if fact not in found.err] == []
    assert ".txt" not in found.err
    (tmp_path / "empty").mkdir()
    assert img2seq("caption", run, tmp_path / "empty") == 2
    assert img2seq("caption", run, tmp_path / "[ea]*") == 0  # a pattern may find folders without pictures


# --- how long, how many at a time


def test_a_caption_is_as_long_as_those_of_the_run(run: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captioner = Captioner.load(run)
    longest = captioner.trained.facts.max_length
    assert longest < 12  # what the model could write, and did
    lengths_given: tuple[dict[str, Any], ...] = ({}, {"max_length": 64})
    for method in ("greedy", "beam"):  # captions that end by themselves are the same
        found, before = (
            captioner.caption([images / f"{i:03}.png" for i in range(8)], method=method, **more)
            for more in lengths_given
        )
        assert [c.tokens for c in found] == [c.tokens for c in before]
    hot: dict[str, Any] = {"method": "sample", "temperature": 100.0, "n_best": 20, "seed": 1}
    lengths = {len(c.text.split()) for c in captioner.caption(images / "000.png", **hot).alternatives}
    assert max(lengths) == longest
    more = captioner.caption(images / "000.png", **hot, max_length=12).alternatives
    assert max(len(c.text.split()) for c in more) == 12
    assert img2seq("caption", run, images / "000.png", "--min-length", "12") == 2
    assert f"--min-length: expected 0 to max_length ({longest}); found 12" in capsys.readouterr().err
    assert img2seq("caption", run, images / "000.png", "--min-length", "12", "--max-length", "12") == 0
    assert len(capsys.readouterr().out.split()) == 12


def test_an_average_is_not_the_greatest_length(run: Path) -> None:
    trained = Captioner.load(run).trained
    assert longest_trained(trained) == {"max_length": trained.facts.max_length}
    output = trained.config.output
    info = output.output_type_info.model_copy(update={"max_length": "average"})
    config = trained.config.model_copy(update={"outputs": [output.model_copy(update={"output_type_info": info})]})
    assert longest_trained(replace(trained, config=config)) == {}


def test_a_least_length_beyond_the_model_is_an_error(run: Path, images: Path) -> None:
    captioner = Captioner.load(run)
    most = captioner.trained.facts.n_positions - 1
    with pytest.raises(ConfigError, match=f"min_length: expected 0 to {most}, .* found {most + 1}"):
        captioner.caption(images / "000.png", min_length=most + 1, max_length=100)
    assert len(captioner.caption(images / "000.png", min_length=most, max_length=100).tokens) == most


def test_many_rows_are_searched_some_images_at_a_time(run: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule for the command line, for Python, for evaluation and for samples."""
    paths = [images / f"{i:03}.png" for i in range(7)]
    settings: dict[str, Any] = {"method": "sample", "n_best": 4}
    expected = [c.text for c in Captioner.load(run).caption(paths, **settings)]
    searched: list[int] = []

    def seen(step: Step, decoding: Decoding, *arguments: Any, **more: Any) -> Any:
        searched.append(step.n_images * decoding.n_rows)
        return search(step, decoding, *arguments, **more)

    monkeypatch.setattr(side_by_side, "search", seen)
    for most, rows in ((8192, [28]), (8, [8, 8, 8, 4]), (1, [4] * 7)):
        monkeypatch.setattr(side_by_side, "MAX_ROWS", most)
        searched.clear()
        assert [c.text for c in Captioner.load(run).caption(paths, **settings)] == expected
        assert searched == rows
    assert side_by_side.MAX_ROWS == 1
