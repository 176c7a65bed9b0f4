"""What a run says at its end: what the image is worth, what to doubt, and commands that run as they stand."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, tiny_config, write_yaml
from img2seq.cli.main import run as img2seq
from img2seq.report.comparison import read_runs, shuffled_gain
from img2seq.report.verdict import findings, next_commands
from img2seq.run.folder import read_json
from img2seq.run.write import write_json


def test_the_worth_of_the_image_is_that_of_the_shuffled_control(finished_runs: tuple[Path, Path]) -> None:
    measured = shuffled_gain(read_runs([finished_runs[1]])[0])
    assert measured is not None
    assert f"{measured[0]:.4f} nats per token" in findings(finished_runs[1])[0]
    assert "no image" in findings(finished_runs[0])[0]


def test_captions_that_repeat_are_noticed_and_different_ones_are_not(
    finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_runs[1], run)
    entries = read_json(run / "validation/captions.json")
    for number, entry in enumerate(entries):
        entry["caption"] = f"caption {number}"
    write_json(run / "validation/captions.json", entries)
    assert not any("repeat" in text for text in findings(run))
    for entry in entries:
        entry["caption"] = "a dog ."
    write_json(run / "validation/captions.json", entries)
    (found,) = [text for text in findings(run) if "repeat" in text]
    assert f"{len(entries)} pictures" in found


def test_captions_are_held_against_the_most_frequent_training_caption(
    finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_runs[1], run)
    summary, entries = read_json(run / "validation/summary.json"), read_json(run / "validation/captions.json")
    (before,) = [text for text in findings(run) if "most frequent" in text]
    assert summary["most_frequent_caption"] in before
    for caption, said in (("true", "captions beat the most"), ("constant", "do not beat"), ("nonsense", "do not beat")):
        for entry in entries:
            words = {"true": entry["true"][0], "constant": summary["most_frequent_caption"], "nonsense": "qwertz"}
            entry["caption"] = words[caption]
        write_json(run / "validation/captions.json", entries)
        assert any(said in text for text in findings(run)), caption
    del summary["most_frequent_caption"]
    write_json(run / "validation/summary.json", summary)
    assert not any("most frequent" in text for text in findings(run)), "a run of an earlier version"
    assert not any("most frequent" in text for text in findings(finished_runs[0])), "it sees no image"


def test_a_single_evaluation_is_said(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert not any("one evaluation" in text for text in findings(finished_runs[1]))
    run = tmp_path / "run"
    shutil.copytree(finished_runs[1], run)
    lines = (run / "history_valid.csv").read_text().splitlines()
    (run / "history_valid.csv").write_text("\n".join(lines[:2]) + "\n")
    assert any("one evaluation" in text for text in findings(run))


def test_the_next_commands_run_as_they_are_from_a_run_alone_to_its_comparison(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert img2seq(["train", str(tiny / "experiment.yaml")]) == 0
    shown = capfd.readouterr().err
    commands = next_commands(tiny / "run")
    assert [shlex.split(command)[1] for command in commands] == ["caption", "evaluate", "train", "compare"]
    for command in commands:
        assert f"  {command}\n" in shown
        assert img2seq(shlex.split(command)[1:]) == 0, command
    comparison = json.loads((tiny / "compare_run_text_run/compare.json").read_text())
    assert comparison["baseline"] == "run_text"
    assert next_commands(tiny / "run")[-1] == commands[-1], "the baseline is there now: nothing to train"
    assert len(next_commands(tiny / "run")) == 3
    assert next_commands(tiny / "run_text") == [f"img2seq compare {tiny / 'run_text'} {tiny / 'run'}"]


def test_runs_of_another_vocabulary_are_not_proposed_for_comparison(tiny: Path) -> None:
    config = tiny_config(tiny, with_image=False)
    config["globals"]["basic_experiment"]["output_folder"] = str(tiny / "other")
    config["outputs"][0]["output_type_info"]["min_freq"] = 9
    assert img2seq(["train", str(write_yaml(tiny / "other.yaml", config))]) == 0
    assert img2seq(["train", str(tiny / "experiment.yaml")]) == 0
    assert not any(str(tiny / "other") in command for command in next_commands(tiny / "run"))


@pytest.mark.parametrize(
    ("file", "content"), [("validation/summary.json", "{"), ("validation/summary.json", "[]"), ("config.yaml", "- x")]
)
def test_a_damaged_run_beside_it_ends_no_training(file: str, content: str, tiny: Path) -> None:
    assert img2seq(["train", str(tiny / "experiment.yaml")]) == 0
    shutil.copytree(tiny / "run", tiny / "beside")
    (tiny / "beside" / file).write_text(content)
    commands = next_commands(tiny / "run")
    assert not any(str(tiny / "beside") in command for command in commands)
    assert img2seq(["train", str(tiny / "experiment.yaml"), "--overwrite"]) == 0


def test_no_inputs_on_the_command_line_is_the_text_only_baseline(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert img2seq(["config", "show", str(tiny / "experiment.yaml"), "--inputs=[]"]) == 0
    shown = capsys.readouterr().out
    assert "photo" not in shown
    assert img2seq(["config", "show", str(tiny / "experiment.yaml"), "--inputs=[1]"]) == 2


def test_a_run_holds_the_list_that_the_documents_show(finished_runs: tuple[Path, Path]) -> None:
    readme = (finished_runs[1] / "README.txt").read_text()
    files = readme.split("\n\n")[1]
    assert files.strip() in (ROOT / "docs/run-folder.md").read_text()
    listed = {
        line.split()[0].split("/")[0] for line in files.splitlines() if line.startswith("    ") and line[4] != " "
    }
    there = {path.name for path in finished_runs[1].iterdir()} - {"README.txt"}
    assert there <= listed, "each file of a run is in its list"
