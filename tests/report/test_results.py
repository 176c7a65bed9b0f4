"""Folders of results: an evaluation or a comparison is never replaced unasked, and one that cannot be written is found before the work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import write_tiny_data
from img2seq.cli import main as cli
from img2seq.inference.captioner import Captioner
from img2seq.run.folder import read_json
from img2seq.run.results import check_writable
from img2seq.run.tables import read_table
from img2seq.run.write import write_json


@pytest.fixture
def runs(finished_runs: tuple[Path, Path], tmp_path: Path) -> tuple[str, str]:
    """Return copies of two finished runs, for tests that write into them."""
    without = shutil.ignore_patterns("evaluation")  # of another test, in the run that all share
    text, image = (
        shutil.copytree(run, tmp_path / "runs" / run.name, symlinks=True, ignore=without) for run in finished_runs
    )
    return str(text), str(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.run(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    return error


# --- compare


def test_comparisons_of_other_runs_go_to_other_folders(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["compare", *runs]) == 0
    folder = tmp_path / "runs/compare_text_image"
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    first = contents(folder)
    assert cli.run(["compare", runs[1]]) == 0
    assert (tmp_path / "runs/compare_image/compare.json").exists()
    monkeypatch.chdir(runs[1])
    assert cli.run(["compare", "."]) == 0  # beside the run, and the same comparison again
    assert not (Path(runs[1]) / "compare_image").exists()
    assert contents(folder) == first
    for n in range(9):
        shutil.copytree(runs[0], tmp_path / "runs" / f"{n}_{'x' * 40}", symlinks=True)
    many = sorted(str(path) for path in (tmp_path / "runs").glob("*_xx*"))
    assert cli.run(["compare", *many]) == 0
    names = [path.name for path in (tmp_path / "runs").glob("compare_0*")]
    assert len(names) == 1
    assert len(names[0]) < 130


def test_the_same_comparison_is_made_again_and_no_other_is_replaced(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "compared"
    compare = ["compare", *runs, "--output", str(folder)]
    assert cli.run(compare) == 0
    first = contents(folder)
    assert cli.run(compare) == 0
    assert contents(folder) == first
    for others in (runs[::-1], runs[:1]):
        error = refused("compare", *others, "--output", str(folder), capsys=capsys)
        assert str(folder / "compare.json") in error
        assert "--overwrite" in error
        assert "--output" in error
        assert contents(folder) == first
    summary = read_json(Path(runs[1]) / "validation/summary.json")
    write_json(Path(runs[1]) / "validation/summary.json", summary | {"valid_loss": summary["valid_loss"] / 2})
    assert "runs has changed" in refused(*compare, capsys=capsys)
    assert contents(folder) == first
    assert cli.run([*compare, "--overwrite"]) == 0
    assert read_json(folder / "compare.json")["runs"][1]["best_validation_loss"] == summary["valid_loss"] / 2


def test_files_of_other_origin_are_kept(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("compare.json", "[]"), ("report.html", "mine"), ("losses.png", "mine")):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        assert cli.run(["compare", runs[0], "--output", str(folder)]) == 0  # nothing of a comparison's is in it
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / name).write_text(text)
        assert str(folder / name) in refused("compare", runs[0], "--output", str(folder), capsys=capsys)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == text


# --- evaluate


def test_an_evaluation_with_other_settings_is_not_replaced(
    runs: tuple[str, str],
    finished_runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate = ["evaluate", runs[1], "--method", "greedy"]
    assert cli.run(evaluate) == 0
    folder = Path(runs[1]) / "evaluation"
    first = contents(folder)
    assert cli.run(evaluate) == 0
    assert contents(folder) == first
    table = tmp_path / "captions.csv"
    table.write_text("ID,Sequence\n000,a red ball .\n001,a green ball .\n")
    other = ["--captions", str(table), "--images", str(finished_runs[1].parent / "images")]
    with monkeypatch.context() as patched:  # found before a caption is made
        patched.setattr(Captioner, "prepare_for_many", lambda self: pytest.fail("began to work"))
        for flags, facts in (
            (["--beam-size", "3"], ["method 'greedy', now 'beam'", "beam_size 5, now 3"]),
            (["--method", "greedy", "--split", "train"], ["'valid split'", "'train split'"]),
            (["--method", "greedy", *other], ["captions has changed"]),
        ):
            error = refused("evaluate", runs[1], *flags, capsys=capsys)
            assert [fact for fact in [str(folder), "--overwrite", "--output", *facts] if fact not in error] == []
            assert contents(folder) == first
    assert cli.run(["evaluate", runs[1], "--beam-size", "3", "--output", str(tmp_path / "three")]) == 0
    assert contents(folder) == first
    assert cli.run(["evaluate", runs[1], "--beam-size", "3", "--overwrite"]) == 0
    assert contents(folder) == contents(tmp_path / "three")
    assert cli.run(["evaluate", runs[1], *other, "--output", str(tmp_path / "table")]) == 0
    table.write_text("ID,Sequence\n000,a red ball .\n001,a green box .\n")
    assert "captions has changed" in refused(
        "evaluate", runs[1], *other, "--output", str(tmp_path / "table"), capsys=capsys
    )


def test_scores_of_other_results_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text('{"1": "a dog runs over grass", "2": "a cat"}')
    (tmp_path / "b.json").write_text('{"1": "a dog", "2": "a cat sleeps"}')
    (tmp_path / "references.json").write_text('{"1": ["a dog runs"], "2": ["the cat sleeps"]}')
    rest = ["--references", str(tmp_path / "references.json"), "--output", str(tmp_path / "scores")]
    for _ in range(2):
        assert cli.run(["evaluate", "--results", str(tmp_path / "a.json"), *rest]) == 0
    first = contents(tmp_path / "scores")
    error = refused("evaluate", "--results", str(tmp_path / "b.json"), *rest, capsys=capsys)
    assert "results has changed" in error
    assert contents(tmp_path / "scores") == first
    assert cli.run(["evaluate", "--results", str(tmp_path / "b.json"), *rest, "--overwrite"]) == 0
    assert contents(tmp_path / "scores") != first


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captioner, "prepare_for_many", lambda self: pytest.fail("began to work"))
    monkeypatch.setattr("img2seq.report.comparison_page.draw_losses", lambda *a, **k: pytest.fail("began to work"))
    (Path(runs[1]) / "evaluation").write_text("a file")
    assert f"{runs[1]}/evaluation: cannot be written" in refused("evaluate", runs[1], capsys=capsys)
    for verb in (["evaluate", runs[1]], ["compare", *runs]):
        error = refused(*verb, "--output", str(tmp_path / "runs/text/config.yaml/x"), capsys=capsys)
        assert "config.yaml/x: cannot be written" in error


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    for folder in (tmp_path / "there", tmp_path / "a/b/c", tmp_path / "there/new"):
        check_writable(folder)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


def test_the_data_itself_is_not_replaced_by_what_was_found_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_data(tmp_path, n=4)
    table = tmp_path / "captions.csv"
    before = table.read_bytes()
    check = ["data", "check", str(table), str(tmp_path / "images"), "--min-freq", "1", "--json"]
    assert "no data check has written it" in refused(*check, str(table), capsys=capsys)
    assert table.read_bytes() == before
    for _ in range(2):
        assert cli.run([*check, str(tmp_path / "found.json")]) == 0


# --- numbers keep all their digits


def numbers(content: Any) -> list[str]:
    if isinstance(content, dict | list):
        values = content.values() if isinstance(content, dict) else content
        return [text for value in values for text in numbers(value)]
    return [repr(content)] if isinstance(content, float) else []


def test_ranks_survive_in_what_is_written(tmp_path: Path) -> None:
    """BLEU-4 of single captions goes down to 1e-9: rounded, thousands of captions would share the rank of 0."""
    results = {"1": "a dog runs", "2": "one cat sat down there now", "3": "the tree is green"}
    references = {"1": ["a man walks"], "2": ["a cat sleeps"], "3": ["trees are green"]}
    for name, content in (("results", results), ("references", references)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    arguments = ["--results", str(tmp_path / "results.json"), "--references", str(tmp_path / "references.json")]
    assert cli.run(["evaluate", *arguments, "--output", str(tmp_path / "o")]) == 0
    rows = read_table(tmp_path / "o/per_image.csv")
    values = [float(row["bleu_4"]) for row in rows]
    assert len(set(values)) == 3
    assert [repr(value) for value in values] == [row["bleu_4"] for row in rows]
    page = (tmp_path / "o/report.html").read_text()
    assert all(f'data-bleu_4="{row["bleu_4"]}"' in page for row in rows)


def test_figures_of_a_run_are_written_in_full(finished_runs: tuple[Path, Path]) -> None:
    run = finished_runs[1]
    for path, columns in (
        (run / "history_train.csv", ["loss", "gradient_norm", "captions_per_s"]),
        (run / "history_valid.csv", ["train_loss", "valid_loss", "perplexity", "elapsed_s"]),
        (run / "validation/images.csv", ["loss_nats", "loss_nats_shuffled"]),
    ):
        rows = read_table(path)
        for column in columns:
            texts = [row[column] for row in rows]
            assert [text for text in texts if text != repr(float(text))] == []
            assert max(len(text.partition(".")[2]) for text in texts) > 9, column
    summary = read_json(run / "validation/summary.json")
    assert max(len(text) for text in numbers(summary)) > 12
    best = min(read_table(run / "history_valid.csv"), key=lambda row: float(row["valid_loss"]))
    assert summary["valid_loss"] == float(best["valid_loss"])
