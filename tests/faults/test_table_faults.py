"""Captions on disk (row 42 of docs/faults.md): what spoils a file in silence is found, in training tables, references and path lists alike."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image

from conftest import write_tiny_data
from img2seq.cli import main as cli
from img2seq.config.outputs import ReadOptions
from img2seq.data.records import Problems
from img2seq.data.sources.read import CaptionsFound, match_images, read_captions
from img2seq.errors import DataError
from img2seq.inference.caption_paths import expand

INVISIBLE = ["\u200b", "\u00ad", "\ufeff", "\u200d", "\u200f", "\u2060", "\ufe0f", "\u200b \u200d\u00ad"]
ROWS = "".join(f"{i:03},a red ball number {i} .\n" for i in range(6))
HEADER = "ID,Sequence\n"
SWALLOWED = '006,"a dog begins\n000,it goes on\n001,and on\n002,and ends here"\n'

# A table, and what must be named of it: the place, and what was found there.
FAULTS: dict[str, tuple[str, list[str]]] = {
    "a comma without quotes": (f"{HEADER}{ROWS}006,a dog, running fast\n", ["line 8", "running fast"]),
    "a value more": ("ID,Sequence,split\n000,a dog,train,left over\n001,a cat,train\n", ["line 2", "left over"]),
    "a comma at the end": (f"{HEADER}{ROWS}006,a dog runs,\n", ["line 8", "a dog runs"]),
    "a space and a comma": (f"{HEADER}{ROWS}006, a dog, sitting\n", ["line 8", "sitting"]),
    "a tab before a quote": (f'{HEADER}{ROWS}006,\t"a dog sits"\n', ["line 8", "a dog sits"]),
    "swallowed rows": (f"{HEADER}{ROWS}{SWALLOWED}", ["line 8", "a dog begins"]),
    "one swallowed row": (f'{HEADER}{ROWS}006,"a dog begins\n007,and a cat ends"\n', ["line 8", "a dog begins"]),
    "swallowed rows with other columns": (
        'Sequence,ID,url\na cat,x1,u\n"a dog,x2,u\na ball,x3,u\na box"\n', ["line 3", "a dog"]
    ),
    "swallowed rows of words": (f'{HEADER}anna,"a dog\nbert,a cat\ncora,a ball"\n', ["line 2", "a dog"]),
    "a line break in an ID": (f'{HEADER}{ROWS}"006\n",a dog\n"00\n7",a cat\n', ["line 10", "00\\n7"]),
    "a quote never closed": (f'{HEADER}{ROWS}006,"a dog\n008,a cat\n', [":8:", "never closed"]),
    "a quote closed too early": (f'{HEADER}{ROWS}006,"a "red" dog"\n', [":8:", "quote"]),
    "a huge value": (f"{HEADER}{ROWS}006,{'dog ' * 30_000}\n", ["line 8", "120,000 characters"]),
    "a value beyond csv": (f"{HEADER}{ROWS}006,{'dog ' * 300_000}\n", [":8:", "too long"]),
    "semicolons": (f"{HEADER}{ROWS}006,a dog;again\n".replace(",", ";"), ["line 8", "found 3", "semicolon"]),
    "tabs": (f"{HEADER}{ROWS}006,a dog,again\n".replace(",", "\t"), ["line 8", "found 3", "tab"]),
    "names that say nothing": (f"a,b\n{ROWS}", [":1:", "'a', 'b'", "id_column", "caption_columns"]),
    "a name nearly right": (f"IDs,Sequence\n{ROWS}", [":1:", "'IDs'", "id_column"]),
    "a column twice": ("ID,Sequence,Sequence\n000,a dog,a cat\n", [":1:", "2", "Sequence"]),
    **{
        f"invisible {char!a}": (f"{HEADER}{ROWS}006,{char}\n007, {char} \n", ["line 8", "line 9", "'006'", "empty"])
        for char in INVISIBLE
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_data(tmp_path, n=12)
    return tmp_path


def check(folder: Path, capsys: pytest.CaptureFixture[str], *, table: str = "captions.csv") -> tuple[int, str]:
    """Return the exit code of `data check`, and all that it says."""
    report = folder / "check.json"
    code = cli.run(
        ["data", "check", str(folder / table), str(folder / "images"), "--min-freq", "1", "--json", str(report)]
    )
    found = json.loads(report.read_text())["findings"] if report.exists() else []
    places = [entry for finding in found if finding["code"] == "bad-row" for entry in finding["entries"]]
    output = capsys.readouterr()
    assert "clean" not in output.out or code == 0
    return code, "\n".join([*places, output.err])


def score(
    folder: Path, capsys: pytest.CaptureFixture[str], *, results: dict[str, str], references: str
) -> tuple[int, str]:
    (folder / "results.json").write_text(json.dumps([{"image_id": i, "caption": text} for i, text in results.items()]))
    arguments = ["--results", str(folder / "results.json"), "--references", str(folder / references)]
    return cli.run(["evaluate", *arguments, "--output", str(folder / "scores")]), capsys.readouterr().err


@pytest.mark.parametrize("name", FAULTS)
def test_what_spoils_a_table_is_named_by_its_place(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, facts = FAULTS[name]
    (folder / "captions.csv").write_text(text, encoding="utf-8", newline="")
    code, said = check(folder, capsys)
    assert code == 2
    assert [fact for fact in facts if fact not in said] == []
    assert max(map(len, said.splitlines())) < 600
    code, said = score(folder, capsys, results={"000": "a dog"}, references="captions.csv")
    assert code == 2
    assert said.count("error: ") == 1
    assert [fact for fact in facts if fact not in said] == []
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID,Sequence\n000, "a dog, sitting"\n001,  a cat\n', ["a dog, sitting", "a cat"]),
        ('ID, Sequence\n"000", "a ""big"" dog"\n001,a "small" cat\n', ['a "big" dog', 'a "small" cat']),
        ('ID,Sequence\n000,"a dog,\nsitting\n\non a mat"\n001,"a cat\r\nand 2 dogs, one ball"\n', ["a dog, sitting on a mat", "a cat and 2 dogs, one ball"]),
        ("\ufeffID,Sequence,Sequence id\n000,a dog,1\n001,a cat,2\n", ["a dog", "a cat"]),
        ("ID,Sequence,split\n000,a dog\n001,a cat,train\n", ["a dog", "a cat"]),
        ("ID,Sequence\n000,a d\u200bo\u00adg \u200b\n001,\u200ea cat\ufeff\n", ["a dog", "a cat"]),
        ("ID,Sequence\n000,caf\u0065\u200b\u0301 \u2764\ufe0f\n001,\u0645\u06cc\u200c\u0631\u0648\u062f\n", ["caf\u00e9 \u2764\ufe0f", "\u0645\u06cc\u200c\u0631\u0648\u062f"]),
    ],
)  # fmt: skip
def test_what_is_meant_is_read(
    text: str, expected: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "captions.csv").write_text(text, encoding="utf-8", newline="")
    found = read_captions(folder / "captions.csv")
    assert found.captions == {"000": [expected[0]], "001": [expected[1]]}
    assert found.problems == []
    code, said = score(folder, capsys, results={"000": expected[0], "001": expected[1]}, references="captions.csv")
    assert (code, "error" in said) == (0, False)
    assert json.loads((folder / "scores/metrics.json").read_text())["bleu_1"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("ID;caption\n000;a dog, asleep\n001;a cat\n", "table with semicolons (images from 'ID', captions from 'caption')"),
        ("filename\ttitle\tdescription\n000.png\tRex\ta dog, asleep\n001.png\tTom\ta cat\n", "table with tabs (images from 'filename', captions from 'description')"),
        ("image_name| comment_number| comment\n000.png| 0| a dog, asleep\n001.png| 0| a cat\n", "table with bars (images from 'image_name', captions from 'comment')"),
        ("ID,caption_1,caption_2\n000,\"a dog, asleep\",\n001,,a cat\n", "table (images from 'ID', captions from 'caption_1', 'caption_2')"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_and_delimiters_of_others_are_read_and_said(text: str, title: str, encoding: str, folder: Path) -> None:
    (folder / "captions.csv").write_text(text, encoding=encoding)
    found = read_captions(folder / "captions.csv")
    assert found.captions == {"000": ["a dog, asleep"], "001": ["a cat"]}
    assert (found.title, found.problems) == (title, [])


def test_the_encoding_of_a_table_is_found_or_given(folder: Path) -> None:
    path, text = folder / "captions.csv", "ID;Sequence\n000;un chien près du café\n001;“a cat” – asleep\n"
    path.write_bytes(text.encode("cp1252"))
    found = read_captions(path)
    assert found.captions == {"000": ["un chien près du café"], "001": ["“a cat” – asleep"]}
    assert ["Windows-1252" in note for note in found.notes] == [True]
    path.write_bytes("ID,Sequence\n000,犬が走っている\n001,猫が寝ている\n".encode("shift-jis"))
    with pytest.raises(DataError, match=r":2: expected UTF-8 text.*cp932"):
        read_captions(path)
    found = read_captions(path, ReadOptions(encoding="cp932"))
    assert found.captions == {"000": ["犬が走っている"], "001": ["猫が寝ている"]}
    with pytest.raises(DataError, match="encoding: expected a name"):
        read_captions(path, ReadOptions(encoding="cp-932-x"))


def test_columns_that_are_named_decide(folder: Path) -> None:
    path = folder / "captions.csv"
    path.write_text("key,file,title,description\nk1,000.png,Rex,a dog\nk2,001.png,Tom,a cat\n")
    assert read_captions(path).captions == {"k1": ["a dog"], "k2": ["a cat"]}
    assert read_captions(path, ReadOptions(image_column="file")).captions == {"000": ["a dog"], "001": ["a cat"]}
    titles = ReadOptions(id_column="file", caption_columns=["title", "description"])
    assert read_captions(path, titles).captions == {"000": ["Rex", "a dog"], "001": ["Tom", "a cat"]}
    with pytest.raises(DataError, match=r"expected the column .titel., found .* Did you mean .title."):
        read_captions(path, ReadOptions(caption_columns=["titel"]))


# --- IDs


def test_names_in_another_unicode_form_are_the_same_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms: list[Literal["NFC", "NFD"]] = ["NFC", "NFD"]
    for written, on_disk in (forms, reversed(forms)):
        shutil.rmtree(folder / "images")
        (folder / "images").mkdir()
        rows, results = [], {}
        for i in range(6):
            name = f"caf\u00e9{i:02}"
            Image.new("RGB", (20 + i, 20)).save(folder / "images" / f"{unicodedata.normalize(on_disk, name)}.png")
            rows.append((unicodedata.normalize(written, name), f"a picture of the shop {i}"))
            results[unicodedata.normalize(on_disk, name)] = "a picture of the shop"
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("ID", "Sequence"), *rows])
        assert check(folder, capsys) == (0, "")
        assert score(folder, capsys, results=results, references="captions.csv")[0] == 0
        shutil.rmtree(folder / "scores")


@pytest.mark.parametrize("written", ["{}.png", "{}.PNG", " {} ", "{}.Png ", "\u00a0{}", "{}\u200b"])
def test_an_ending_or_blanks_make_no_other_image(
    written: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"{i:03}" for i in range(12)]
    table = "".join(f"{written.format(i)},a picture numbered {i}\n" for i in ids)
    (folder / "captions.csv").write_text(HEADER + table, encoding="utf-8")
    assert check(folder, capsys) == (0, "")
    for name in ("{}", "{}.jpg"):
        results = {name.format(i): "a picture" for i in ids}
        code, said = score(folder, capsys, results=results, references="captions.csv")
        assert (code, "error" in said) == (0, False)
        shutil.rmtree(folder / "scores")


def test_one_image_under_two_names_in_the_results_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "captions.csv").write_text(f"{HEADER}000,a dog\n")
    code, said = score(folder, capsys, results={"000.jpg": "a", "000.png": "b"}, references="captions.csv")
    assert code == 2
    assert all(fact in said for fact in ("000 has two captions", "'000.jpg'", "'000.png'"))


def test_a_file_whose_name_has_two_endings_is_found_by_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/000.png").rename(folder / "images/000.gif.jpg")
    rows = "".join(f"{i:03},a picture numbered {i}\n" for i in range(1, 12))
    for name in ("000.gif", "000.gif.jpg", "000"):
        (folder / "captions.csv").write_text(f"{HEADER}{name},a picture without a number\n{rows}")
        assert check(folder, capsys) == (0, ""), name


def test_a_long_id_is_cut_in_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "captions.csv").write_text(f"{HEADER}000,a red ball\n{'x' * 90_000},a dog runs\n{'y' * 90_000},\n")
    assert check(folder, capsys)[0] == 2
    problems = Problems()
    captions = read_captions(folder / "captions.csv").captions
    match_images(CaptionsFound(captions, []), captions, folder / "images", "photo", problems)
    assert "1 ID(s) with captions have no image" in problems.text()
    assert len(problems.text()) < 1000
    with pytest.raises(DataError, match="none of the 1 captioned IDs") as error:
        match_images(
            CaptionsFound({"z" * 90_000: ["a dog"]}, []),
            {"z" * 90_000: ["a dog"]},
            folder / "images",
            "photo",
            problems,
        )
    assert len(str(error.value)) < 1000


# --- other files


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("karpathy.json", json.dumps({"images": [{"sentences": [{"raw": "a dog"}] * 5}] * 500, "dataset": "coco"}), ["images[0]", "filename", "found none"]),
        ("list.json", json.dumps([{"picture of": "x" * 500, "words": "a dog"}] * 500), ["JSON list", "500", "'picture of'"]),
        ("instances.json", json.dumps({"images": [], "annotations": [{"image_id": 1, "bbox": [1.5] * 900, "iscrowd": 0}] * 500}), ["annotations[0]", "caption", "found none"]),
        ("empty.json", "{}", ["empty JSON object"]),
        ("broken.json", '{"1": ["a dog"],\n "2": [}', ["line 2, column 8"]),
        ("twice.json", '{"1": ["a dog"], "1": ["a cat"]}', ["'1'", "twice"]),
        ("captions.xlsx", b"PK\x03\x04\x14\x00\x06\x00" + b"x\0" * 5000, ["ZIP"]),
        ("captions.csv", b"\0\1\2\3" * 9000, ["binary data"]),
        ("minified.csv", "a" * 70_000, [":1:", "ID and Sequence"]),
        ("minified2.csv", "a," * 70_000, [":1:", "ID and Sequence", "more"]),
        ("empty.csv", "", ["found nothing"]),
    ],
)  # fmt: skip
def test_a_file_of_another_format_is_one_short_error(
    name: str, content: str | bytes, facts: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for code, said in (check(folder, capsys, table=name), score(folder, capsys, results={"1": "a"}, references=name)):
        assert code == 2
        assert said.count("error: ") == 1
        assert str(folder / name) in said
        assert [fact for fact in facts if fact not in said] == []
        assert len(said) < 3000
        assert max(map(len, said.splitlines())) < 700


@pytest.mark.parametrize(
    "content", [{"1": "x" * 90_000, "2": ["y" * 90_000]}, [{"image_id": "z" * 90_000}], [["w" * 90_000]] * 3]
)
def test_results_that_are_none_are_one_short_error(
    content: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other.json").write_text(json.dumps(content))
    arguments = ["--results", str(folder / "other.json"), "--references", str(folder / "captions.csv")]
    assert cli.run(["evaluate", *arguments, "--output", str(folder / "scores")]) == 2
    assert len(capsys.readouterr().err) < 1000


def test_json_has_the_rules_of_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists: dict[str, list[Any]] = {
        "000.PNG ": ["a d\u00adog"],
        "001": ["\u200b", 3, "a cat"],
        "\ufeff": ["a ball"],
        "002": [],
    }
    (folder / "lists.json").write_text(json.dumps(lists))
    entries = [{"image_id": n, "caption": text[0]} for n, text in enumerate(lists.values()) if text]
    (folder / "coco.json").write_text(json.dumps({"annotations": [*entries, {"image_id": 9, "caption": "\ud800"}]}))
    for name, facts in (
        ("lists.json", ["image 001: ID '001': the caption is empty", "found 3", "the ID is empty", "image 002", "[]"]),
        ("coco.json", ["annotations[1]: ID '1': the caption is empty", "annotations[3]", "surrogate"]),
    ):
        code, said = check(folder, capsys, table=name)
        assert code == 2
        assert [fact for fact in facts if fact not in said] == []
        code, said = score(folder, capsys, results={"000": "a dog"}, references=name)
        assert code == 2
        assert [fact for fact in facts if fact not in said] == []


# --- lists of paths


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("path\na.png,b.png\n", ["line 2", "'b.png'"]),
        ("path,caption\na.png,a dog\nb.png,a dog, running\n", ["line 3", "running"]),
        ("path;caption\na.png;a dog;b\n", ["line 2", "found 3", "semicolon"]),
        ("title,caption\na.png,a dog\n", [":1:", "'title', 'caption'"]),
        ("ID,caption\na,a dog\n", ["IDs alone", "--images"]),
        ('path,caption\na1.png,"a dog\na2.png,a cat"\n', ["line 2", "a dog"]),
        ('path\na.png\n"b.png\n', [":3:", "never closed"]),
        ("path\na.png\n\u200b\n", ["line 3", "empty"]),
        ("caption,path\na dog,a.png\na cat\n", ["line 3", "found 1"]),
        (f"path\n{'x' * 90_000}\n{'y' * 120_000}\n", ["line 3", "120,000 characters"]),
        ("path\nd\u00e9j\u00e0.png\n".encode() + b"caf\xe9.png\n", [":3:", "UTF-8"]),
    ],
)
def test_a_list_of_paths_has_the_rules_of_tables(text: str | bytes, facts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "LIST.CSV"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        list(expand([str(path)], io.StringIO(), warn=print))
    assert [fact for fact in [str(path), *facts] if fact not in str(error.value)] == []
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "path\na.png\nb.jpg\n",
        "\ufeffcaption, path\nx, a.png\ny, b.jpg\n",
        "a.png\nb.jpg\n",
        '"a.png", a dog\n"b.jpg", a cat\n\n',
        "path\r\na.png\r\nb.jpg\r\n",
    ],
)
def test_a_list_of_paths_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", newline="")
    found = expand([str(tmp_path / "list.csv")], io.StringIO(), warn=print)
    assert list(found) == [str(tmp_path / n) for n in ("a.png", "b.jpg")]


# --- the process


def test_reading_changes_nothing_for_the_rest_of_the_process(folder: Path) -> None:
    """The limit of `csv` is one for all threads: neither importing nor reading may move it."""

    def read() -> None:
        read_captions(folder / "captions.csv")
        seen.add(csv.field_size_limit())

    before = csv.field_size_limit()
    seen: set[int] = set()
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, csv.field_size_limit()) == ({before}, before)
    assert before == 131_072
