"""`img2seq evaluate RUN --tune`, and that what it stores is how a run searches, wherever it captions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from conftest import img2seq
from img2seq import Captioner
from img2seq.config.decoding import Decoding
from img2seq.errors import RunError
from img2seq.evaluation.evaluate_run import evaluate_run
from img2seq.evaluation.scored import EvaluationData
from img2seq.evaluation.tune import Tried, Way, chosen
from img2seq.export.export_run import export_run
from img2seq.progress import Announcer
from img2seq.run.checkpoint import best
from img2seq.run.folder import read_json
from img2seq.run.stored_decoding import weights_digest
from img2seq.run.write import write_json
from servers import serving

QUIET = Announcer(level="critical", bars=False)
SHORT: dict[str, Any] = {"beam_size": 2, "max_length": 3}  # no other settings give such captions


def store(run: Path, decoding: Any, **more: Any) -> None:
    write_json(run / "decoding.json", {"decoding": decoding, **more})


@pytest.fixture
def pictures(images: Path) -> list[str]:
    return sorted(map(str, images.glob("*.png")))[:3]


# --- choosing


def test_the_best_way_is_stored_and_evaluated(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert img2seq("evaluate", own_run, "--tune", "--batch-size", "4") == 0
    shown, stored = capsys.readouterr().out, read_json(own_run / "decoding.json")
    rows = stored["tried"]
    ways = [tuple(row[name] for name in asdict(Way())) for row in rows]
    assert len(set(ways)) == len(ways)
    assert tuple(asdict(Way()).values()) in ways
    highest = max(row["cider_d"] for row in rows)
    equals = [row for row in rows if row["cider_d"] == highest]
    assert stored["decoding"]["beam_size"] == min(row["beam_size"] for row in equals)
    (way,) = (row for row in equals if stored["decoding"].items() <= row.items())
    assert (stored["images"], stored["chosen_by"]) == (len(read_json(own_run / "split.json")["valid"]), "cider_d")
    # each row of the table is on the screen, and what follows it is the evaluation of the way that was chosen
    assert all(f"{row['cider_d']:.4f}" in shown for row in rows)
    metrics = read_json(own_run / "evaluation/metrics.json")
    assert stored["decoding"].items() <= metrics["decoding"].items()
    assert metrics["cider_d"] == pytest.approx(way["cider_d"], rel=1e-12)
    # images that are encoded once for all ways are captioned as if they were encoded for each
    captioner = Captioner.load(own_run, batch_size=4)
    assert stored["decoding"].items() <= captioner.decoding_defaults.items()
    for row in (rows[0], rows[-1], next(row for row in rows if row["beam_size"] == 8)):
        settings = captioner.decoding_defaults | {name: row[name] for name in asdict(Way())}
        found = evaluate_run(captioner, Decoding.of(settings), EvaluationData(), announce=QUIET)
        scores = (found.scores.corpus["cider_d"], found.scores.corpus["bleu_4"])
        assert scores == pytest.approx((row["cider_d"], row["bleu_4"]), rel=1e-12)
        assert row["distinct"] == found.diversity.distinct_captions_ratio
    # it may be chosen anew, but not in place of what a person wrote
    assert img2seq("evaluate", own_run, "--tune", "--batch-size", "4") == 0
    assert read_json(own_run / "decoding.json") == stored
    store(own_run, {**stored["decoding"], "length_penalty": 0.9}, tried=rows)
    edited = (own_run / "decoding.json").read_bytes()
    assert img2seq("evaluate", own_run, "--tune") == 2
    assert (own_run / "decoding.json").read_bytes() == edited
    assert "decoding.json" in capsys.readouterr().err
    assert img2seq("evaluate", own_run, "--tune", "--batch-size", "4", "--overwrite") == 0
    assert read_json(own_run / "decoding.json") == stored


def test_of_equal_ways_the_one_with_the_fewest_beams_is_chosen() -> None:
    better, usual = Tried(8, 1.3, 3, cider_d=0.6), Tried(5, 0.7, 0, cider_d=0.5)
    ties = [usual, Tried(3, 0.0, 0, cider_d=0.5), Tried(3, 0.7, 2, cider_d=0.5), Tried(3, 0.7, 0, cider_d=0.5)]
    assert chosen([usual, better, *ties]) == better
    assert chosen(ties).way == Way(3, 0.7, 0)
    assert chosen(ties[:3]).way == Way(3, 0.7, 2)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--captions", "c.csv"], "--captions"),
        (["--split", "test"], "--split test"),
        (["--split", "train"], "--split train"),
        (["--beam-size", "3"], "--beam-size"),
        (["--min-length", "3"], "--min-length"),
        (["--document-frequency", "df.json"], "--document-frequency"),
        (["--mirror"], "--mirror"),
    ],
)
def test_nothing_else_can_be_asked_for_with_it(
    flags: list[str], named: str, own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert img2seq("evaluate", own_run, "--tune", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"found {named}")
    assert not (own_run / "decoding.json").exists()


def test_it_needs_one_run_with_its_split(
    run: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_run(run, tmp_path / "lean", announce=QUIET)
    scores: list[str | Path] = ["--output", tmp_path / "scores"]
    assert img2seq("evaluate", run, run, "--tune", *scores) == 2
    assert "found 2 runs" in capsys.readouterr().err
    assert img2seq("evaluate", "--tune", "--results", "r.json", "--references", "c.csv", *scores) == 2
    assert "found --results" in capsys.readouterr().err
    for export in (tmp_path / "lean", exported):
        assert img2seq("evaluate", export, "--tune", *scores) == 2
        assert f"{export}" in capsys.readouterr().err
        assert not (export / "decoding.json").exists()


# --- using what is stored


def test_every_way_to_caption_takes_it(
    own_run: Path, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [caption.text for caption in Captioner.load(own_run).caption(pictures)]
    expected = [caption.text for caption in Captioner.load(own_run).caption(pictures, **SHORT)]
    assert usual != expected
    store(own_run, SHORT, weights_sha256=weights_digest(best(own_run / "checkpoints")))
    export_run(own_run, tmp_path / "lean", announce=QUIET)
    export_run(own_run, tmp_path / "onnx", onnx=("fp32",), announce=QUIET)
    folders = [own_run, tmp_path / "lean", tmp_path / "onnx"]
    capsys.readouterr()
    for folder in folders:
        captioner = Captioner.load(folder)
        assert captioner.decoding_defaults == SHORT
        assert [caption.text for caption in captioner.caption(pictures)] == expected
        asked = captioner.caption(pictures, max_length=64, beam_size=5)
        assert [caption.text for caption in asked] == usual
        assert img2seq("caption", folder, *pictures) == 0
        assert [line.split("\t")[-1] for line in capsys.readouterr().out.splitlines()] == expected
        assert img2seq("runs", "show", folder) == 0
        (line,) = (one for one in capsys.readouterr().out.splitlines() if one.strip().startswith("decoding "))
        assert all(f"{name} {value}" in line for name, value in SHORT.items())
        assert img2seq("runs", "verify", folder) == 0
        capsys.readouterr()
    assert read_json(tmp_path / "onnx/generation_config.json")["max_length"] == SHORT["max_length"] + 1
    export_run(own_run, tmp_path / "lean", overwrite=True, announce=QUIET)  # the file is one of an export's own
    with serving(tmp_path, *folders) as served:
        data = Path(pictures[0]).read_bytes()
        models = served.get("/info").json()["models"]
        assert [model["decoding_defaults"] for model in models] == [SHORT] * 3
        for folder in folders:
            answer = served.post(f"/caption?model={folder.name}", content=data, headers={"Content-Type": "image/png"})
            assert answer.json()["captions"][0]["text"] == expected[0]


def test_settings_of_another_checkpoint_are_not_used(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = Captioner.load(own_run).decoding_defaults
    store(own_run, SHORT, weights_sha256="0" * 64)
    assert Captioner.load(own_run).decoding_defaults == usual
    assert img2seq("runs", "show", own_run) == 0
    assert "not used" in capsys.readouterr().out
    assert img2seq("evaluate", own_run) == 0
    assert str(own_run / "decoding.json") in capsys.readouterr().err
    assert read_json(own_run / "evaluation/metrics.json")["decoding"]["max_length"] == usual["max_length"]
    export_run(own_run, tmp_path / "lean", announce=QUIET)
    assert not (tmp_path / "lean/decoding.json").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not valid JSON"),
        ("[]", "decoding: expected settings"),
        ('{"decoding": 3}', "decoding: expected settings"),
        ('{"decoding": {"beam_size": 0}}', "beam_size: expected 1 to 1000"),
        ('{"decoding": {"beam_size": "3"}}', "beam_size: expected a whole number"),
        ('{"decoding": {"length_penalty": NaN}}', "length_penalty"),
        ('{"decoding": {"no_repeat_ngram_size": 3}}', "Did you mean 'no_repeat_ngram'"),
        ('{"decoding": {"min_length": 60}}', "min_length"),
        ('{"decoding": {"n_best": 2}}', "n_best"),
    ],
)
def test_a_damaged_file_is_one_error(
    content: str, named: str, own_run: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_run / "decoding.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"decoding\.json: "):
        Captioner.load(own_run)
    for command in (("caption", own_run, pictures[0]), ("evaluate", own_run)):
        assert img2seq(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert named in line
    assert path.read_text() == content


def test_more_captions_than_the_usual_beams_where_the_run_has_more(
    own_run: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    store(own_run, {"beam_size": 8})
    assert img2seq("caption", own_run, pictures[0], "--n-best", "8", "--format", "jsonl") == 0
    assert len(json.loads(capsys.readouterr().out)["alternatives"]) == 7
    assert img2seq("caption", own_run, pictures[0], "--beam-groups", "4") == 0
    capsys.readouterr()
    assert img2seq("caption", own_run, pictures[0], "--n-best", "9") == 2
    assert "beam_size (8)" in capsys.readouterr().err
