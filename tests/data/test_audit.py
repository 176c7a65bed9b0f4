"""`img2seq data check`: every kind of fault is found, a good data set is clean, and memory does not grow with the pictures."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import PEAK_MB, tiny_config, write_tiny_data, write_yaml
from img2seq.cli import main as cli

Found = dict[str, tuple[str, list[str]]]


def checked(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, Found, dict[str, Any]]:
    """Return exit code, findings by code as (severity, places), and the whole report."""
    code = cli.run(["data", "check", *arguments, "--json", str(folder / "check.json")])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    report = json.loads((folder / "check.json").read_text())
    for finding in report["findings"]:
        assert finding["what"] in output.out
        assert finding["count"] == len(finding["entries"])
    return code, {f["code"]: (f["severity"], f["entries"]) for f in report["findings"]}, report


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Return a folder with a data set in which nothing is wrong, and experiment.yaml."""
    write_tiny_data(tmp_path, n=16)
    rows = [(f"{i:03}", f"picture {i} shows something") for i in range(16)]
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ID", "Sequence"), *rows])
    config = tiny_config(tmp_path)
    config["globals"]["basic_experiment"]["valid_size"] = 4
    config["outputs"][0]["output_type_info"]["split_on"] = ""
    write_yaml(tmp_path / "experiment.yaml", config)
    return tmp_path


def test_a_good_experiment_is_clean_and_its_figures_are_true(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, report = checked(capsys, clean, str(clean / "experiment.yaml"))
    assert (code, found, report["severity"]) == (0, {}, "clean")
    assert report["captions"]["captions"] == report["captions"]["images"] == 16
    images = report["images"]["photo"]
    assert (images["files"], images["usable"]) == (16, 16)
    assert (images["formats"], images["modes"]) == ({"PNG": 16}, {"RGB": 16})
    assert (images["width"]["min"], images["height"]["max"]) == (40, 30)
    assert images["bytes"] == sum(path.stat().st_size for path in (clean / "images").iterdir())
    assert (report["split"]["train"], report["split"]["valid"]) == (12, 4)
    assert report["lengths"]["histogram"] == {"25": 10, "26": 6}  # characters
    assert report["vocabulary"]["known_share"]["all"] > 0.95


def add_rows(*rows: tuple[str, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / "captions.csv").open("a", newline="") as file:
            csv.writer(file).writerows(rows)

    return change


def resized(width: int, height: int) -> Callable[[Path], None]:
    return lambda f: Image.new("RGB", (width, height), "red").save(f / "images/002.png")


def copied(name: str, other: str) -> Callable[[Path], object]:
    return lambda f: shutil.copy(f / f"images/{name}", f / f"images/{other}")


# What is done to a clean data set, and the one finding: code, severity, a place.
FAULTS: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "truncated": (lambda f: (f / "images/002.png").write_bytes((f / "images/002.png").read_bytes()[:-40]), "broken-image", "error", "002.png: "),
    "empty": (lambda f: (f / "images/002.png").write_bytes(b""), "broken-image", "error", "an empty file"),
    "not an image": (lambda f: (f / "images/002.png").write_text("hello"), "broken-image", "error", "not an image"),
    "broken but not used": (lambda f: (f / "images/x.png").write_text("hello"), "broken-image-unused", "warning", "x.png"),
    "missing": (lambda f: (f / "images/002.png").unlink(), "missing-image", "error", "002"),
    "two files": (copied("002.png", "002.jpg"), "id-clash", "error", "002: "),
    "a link out": (lambda f: (f / "images/l.png").symlink_to("/etc/hostname"), "refused-file", "error", "l.png"),
    "kinds that are not read": (lambda f: (f / "images/x.JXL").write_bytes(b"x"), "unread-picture", "warning", "1 .jxl"),
    "copies": (copied("002.png", "copy.png"), "duplicate-image", "warning", "002, copy"),
    "tiny": (resized(40, 8), "odd-shape", "warning", "002.png: 40 x 8"),
    "narrow": (resized(1000, 20), "odd-shape", "warning", "002.png: 1000 x 20"),
    "empty caption": (add_rows(("003", " ")), "bad-row", "error", "line 18"),
    "one word": (add_rows(("003", "something .")), "short-caption", "warning", "003: 'something .'"),
    "no words": (add_rows(("003", "\u200b . \u200b")), "short-caption", "warning", "003: "),
    "said twice": (add_rows(("003", "Picture 3 shows something")), "repeated-caption", "warning", "003: "),
    "said everywhere": (add_rows(*((f"{i:03}", "some picture") for i in range(5))), "common-caption", "warning", "on 5 images"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_itself(name: str, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected, severity, place = FAULTS[name]
    change(clean)
    code, found, _ = checked(capsys, clean, str(clean / "experiment.yaml"))
    assert code == {"warning": 1, "error": 2}[severity]
    assert set(found) == {expected}
    assert found[expected][0] == severity
    assert place in found[expected][1][0]


def test_pictures_of_one_name_in_two_folders_are_two_ids(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, n in (("a", 2), ("b", 3)):
        (clean / "images" / folder).mkdir()
        (clean / f"images/{n:03}.png").rename(clean / f"images/{folder}/x.png")
    table = (clean / "captions.csv").read_text()
    (clean / "captions.csv").write_text(table.replace("002,", "a/x.png,").replace("003,", "b/x,"))
    code, found, report = checked(capsys, clean, str(clean / "experiment.yaml"))
    assert (code, found, report["images"]["photo"]["without_caption"]) == (0, {}, 0)


def leaking(folder: Path) -> None:
    """Put a training picture into validation, under another ID, beside one that stands in it alone."""
    copied("000.png", "copy.png")(folder)
    add_rows(("copy", "the same picture again"))(folder)
    (folder / "valid.txt").write_text("copy\n001\n")


def only_leaking(folder: Path) -> None:
    leaking(folder)
    (folder / "valid.txt").write_text("copy\n")


# What is done to a data set whose experiment says on_bad_data: skip, the finding, and whether training goes on.
LEFT_OUT: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "empty caption": (add_rows(("003", " ")), "bad-row", True),
    "broken": (FAULTS["truncated"][0], "broken-image", True),
    "missing": (FAULTS["missing"][0], "missing-image", True),
    "two files": (FAULTS["two files"][0], "id-clash", True),
    "a link out": (FAULTS["a link out"][0], "refused-file", True),
    "a leak": (leaking, "content-leak", True),
    "unknown ID": (lambda f: (f / "valid.txt").write_text("001\nnope\n"), "unknown-split-id", True),
    "leaks alone": (only_leaking, "empty-side", False),
    "many broken": (lambda f: [(f / f"images/{i:03}.png").write_bytes(b"") for i in range(4)], "too-many-broken", False),
    "no validation": (lambda f: (f / "valid.txt").write_text("nope\n"), "empty-side", False),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_training_leaves_out_is_no_error(name: str, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected, goes_on = LEFT_OUT[name]
    change(clean)
    config = tiny_config(clean)
    config["globals"]["basic_experiment"] |= {
        "on_bad_data": "skip",
        "max_broken_share": 0.1,
        "valid_size": 4,
        "n_epochs": 1,
    }
    config["outputs"][0]["output_type_info"]["split_on"] = ""
    if (clean / "valid.txt").exists():
        config["globals"]["basic_experiment"]["manual_valid_ids_file"] = str(clean / "valid.txt")
    experiment = str(write_yaml(clean / "experiment.yaml", config))
    code, found, report = checked(capsys, clean, experiment)
    assert found[expected][0] == ("left out" if goes_on else "error")
    assert code == ((1 if "duplicate-image" in found else 0) if goes_on else 2)
    if code == 0:
        assert report["severity"] == "left out"
    assert cli.run(["data", "check", experiment]) == code
    output = capsys.readouterr().out
    assert ("training leaves out and lists (on_bad_data: skip)" in output) == any(
        s == "left out" for s, _ in found.values()
    )
    assert "clean" not in output
    assert cli.run(["train", experiment]) == (0 if goes_on else 2)  # the check was right
    if goes_on:
        split = json.loads((clean / "run/split.json").read_text())
        assert {side: len(ids) for side, ids in split.items()} == {
            s: report["split"][s] for s in ("train", "valid", "test")
        }


def test_tables_and_folders_are_checked_together(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "more").mkdir()
    for n in (14, 15):
        shutil.move(clean / f"images/{n:03}.png", clean / "more")
    table = str(clean / "captions.csv")
    _, found, _ = checked(capsys, clean, table, str(clean / "images"))
    assert found["missing-image"][1] == ["014", "015"]
    _, found, report = checked(capsys, clean, table, str(clean / "images"), str(clean / "more"))
    assert "missing-image" not in found
    assert report["images"]["images"]["files"] == 16


def test_leaks_are_found_by_id_and_by_content(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(clean / "images/000.png", clean / "images/copy.png")
    add_rows(("copy", "the same picture again"))(clean)
    (clean / "valid.txt").write_text("copy\n001\nnope\n")
    sources = [str(clean / "captions.csv"), str(clean / "images"), "--valid-ids", str(clean / "valid.txt"), "--min-freq", "1"]  # fmt: skip
    code, found, _ = checked(capsys, clean, *sources)
    assert code == 2
    assert found["content-leak"] == ("error", ["copy (validation) is 000 (training)"])
    assert found["unknown-split-id"] == ("error", ["nope"])
    assert "id-leak" not in found
    (clean / "train.txt").write_text("001\n002\n")
    _, found, report = checked(capsys, clean, *sources, "--train-ids", str(clean / "train.txt"))
    assert found["id-leak"] == ("error", ["001"])
    assert "content-leak" not in found  # 000 is trained on no more
    assert (report["split"]["train"], report["split"]["valid"]) == (2, 2)


def test_the_random_split_of_an_experiment_has_no_leak(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(8):
        shutil.copy(clean / f"images/{n:03}.png", clean / f"images/copy_{n}.png")
        add_rows((f"copy_{n}", f"picture {n} once more"))(clean)
    _, found, report = checked(capsys, clean, str(clean / "experiment.yaml"))
    assert "content-leak" not in found
    assert len(found["duplicate-image"][1]) == 8
    assert report["split"]["valid"] == 4


def test_words_of_the_validation_part_that_training_lacks_are_counted(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (clean / "captions.csv").open("w", newline="") as file:
        rows = [(f"{i:03}", "a dog sleeps there" if i else "a zebra sleeps there") for i in range(16)]
        csv.writer(file).writerows([("ID", "Sequence"), *rows])
    (clean / "valid.txt").write_text("000\n001\n")
    sources = [str(clean / name) for name in ("captions.csv", "images")]
    _, found, report = checked(capsys, clean, *sources, "--valid-ids", str(clean / "valid.txt"), "--min-freq", "2")
    assert report["vocabulary"]["known_share"] == {"all": 63 / 64, "validation": 7 / 8}
    assert report["vocabulary"]["unknown"] == {"zebra": 1}
    assert "low-coverage" in found
    _, found, _ = checked(capsys, clean, *sources, "--min-freq", "99")
    assert "99 leaves an empty vocabulary" in found["no-vocabulary"][1][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{f}/nothing"], "found nothing"),
        (["{f}/check.json"], "check.json: expected captions in a format that is known"),
        (["{f}/experiment.yaml", "{f}/images"], "one experiment alone"),
        (["{f}/captions.csv", "--valid-ids", "{f}/no.txt"], "no.txt: cannot be read"),
    ],
)
def test_what_cannot_be_checked_is_one_error(
    arguments: list[str], said: str, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean / "check.json").write_text("{}")
    assert cli.run(["data", "check", *(text.replace("{f}", str(clean)) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert said in error


PEAK = f"""{PEAK_MB}
import sys
from img2seq.cli import main as cli
cli.run(["data", "check", sys.argv[1], "--workers", "1"])
print(peak_mb(), file=sys.stderr)
"""


def test_memory_does_not_grow_with_the_number_of_large_pictures(tmp_path: Path) -> None:
    peak_mb = []
    for n in (1, 12):
        (tmp_path / str(n)).mkdir()
        for i in range(n):
            Image.new("RGB", (1600, 1400 + i), "red").save(tmp_path / str(n) / f"{i}.png", compress_level=0)  # 7 MB
        done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / str(n)], capture_output=True, text=True)
        assert f"{n} files" in done.stdout
        peak_mb.append(int(done.stderr.split()[-1]))
    assert peak_mb[1] - peak_mb[0] < 30  # eleven more of them are 75 MB, as files and decoded alike
