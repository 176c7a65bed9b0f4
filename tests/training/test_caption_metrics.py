"""Scores in the loop: the figures of `img2seq evaluate`, and the best checkpoint, early stopping and reports that follow them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_loop import newest, run_of

from conftest import img2seq
from img2seq.build.trained import load_run
from img2seq.config.decoding import Decoding
from img2seq.errors import ConfigError, RunError
from img2seq.evaluation.evaluate_run import evaluate_run
from img2seq.evaluation.scored import EvaluationData
from img2seq.inference.captioner import Captioner
from img2seq.metrics import score
from img2seq.progress import Announcer
from img2seq.report.curves import draw_losses, read_curve
from img2seq.run.checkpoint import all_checkpoints
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.tables import read_table
from img2seq.training.caption_metrics import CaptionScorer

SECTION = "globals.evaluation_checkpoint"
GREEDY = f"{SECTION}.caption_metrics.method=greedy"
BY_CIDER = f"{SECTION}.best_by=cider_d"
QUIET = Announcer(level="critical", bars=False)


def rows_of(run: RunFolder) -> list[dict[str, str]]:
    return read_table(run.history_valid)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_scores_while_training_are_those_of_evaluate(tiny: Path, method: str) -> None:
    run = run_of(tiny, f"{SECTION}.caption_metrics.method={method}", "globals.basic_experiment.n_epochs=6")
    captioner = Captioner.load(run.path)
    decoding = Decoding.of({"method": method, **captioner.decoding_defaults})
    found = evaluate_run(captioner, decoding, EvaluationData(), announce=QUIET)
    (row,) = [row for row in rows_of(run) if int(row["iteration"]) == captioner.trained.checkpoint.step]
    for name in ("bleu_4", "cider_d"):
        assert float(row[name]) == pytest.approx(found.scores.corpus[name], rel=1e-9)
    assert float(row["distinct"]) == found.diversity.distinct_captions_ratio
    assert float(row["cider_d"]) > 0.1
    saved = captioner.trained.checkpoint.state()["scores"]
    assert saved == {name: float(row[name]) for name in ("bleu_4", "cider_d", "distinct")}


def test_scores_of_some_images_are_those_of_their_captions_alone(tiny: Path) -> None:
    run = run_of(tiny, f"{SECTION}.caption_metrics.n_images=4", "globals.basic_experiment.n_epochs=6")
    captioner = Captioner.load(run.path)
    found = evaluate_run(
        captioner, Decoding.of({"method": "greedy", **captioner.decoding_defaults}), EvaluationData(), announce=QUIET
    )
    (row,) = [row for row in rows_of(run) if int(row["iteration"]) == captioner.trained.checkpoint.step]
    by_id = {entry["image_id"]: entry for entry in read_json(run.validation / "captions.json")}
    chosen = list(by_id)[:4]  # the gallery shows the same images first
    alone = score({i: found.captions[i] for i in chosen}, {i: found.references[i] for i in chosen}, java_metrics=())
    assert float(row["cider_d"]) == pytest.approx(alone.corpus["cider_d"], rel=1e-9)


def test_nothing_is_scored_unless_asked_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CaptionScorer, "__init__", lambda *a, **k: pytest.fail("scores were not asked for"))
    run = run_of(tiny)
    assert "cider_d" not in rows_of(run)[0]
    assert {"scores", "rank"}.isdisjoint(newest(run).state())


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Give the CIDEr-D that each evaluation finds."""

    def script(values: list[float]) -> None:
        waiting: Iterator[float] = iter(values)

        def measure(scorer: CaptionScorer, model: object, **more: object) -> dict[str, float]:
            return {"bleu_4": 0.25, "cider_d": next(waiting), "distinct": 0.5}

        monkeypatch.setattr(CaptionScorer, "measure", measure)

    return script


def test_the_best_checkpoint_is_that_of_the_highest_score(
    tiny: Path, scripted: Callable[[list[float]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted([0.2, 0.9, 0.4, 0.3])
    run = run_of(tiny, GREEDY, BY_CIDER, f"{SECTION}.sample_interval=4", "globals.basic_experiment.n_epochs=3")
    losses = {int(row["iteration"]): float(row["valid_loss"]) for row in rows_of(run)}
    assert list(losses) == [4, 8, 12, 15]
    assert min(losses, key=losses.__getitem__) != 8, "the loss must choose another one, or this shows nothing"
    assert [c.step for c in all_checkpoints(run.checkpoints)] == [8, 15]  # the best and the last
    best = load_run(run.path).checkpoint
    assert best.step == 8
    assert best.state()["rank"] == -0.9
    summary = read_json(run.validation / "summary.json")
    assert summary["step"] == 8
    assert summary["best_by"] == "cider_d"
    assert summary["valid_loss"] == losses[8]
    capsys.readouterr()
    assert img2seq("runs", "show", run.path) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == ["best"]]
    assert "0.9000" in line
    assert "at step 8;" in line
    assert img2seq("export", run.path, tiny / "export") == 0
    assert "0.9000" in capsys.readouterr().out
    assert read_json(tiny / "export/export.json")["scores"]["cider_d"] == 0.9
    assert load_run(tiny / "export").checkpoint.step == 8
    other = run_of(tiny, f"globals.basic_experiment.output_folder={tiny / 'other'}")
    capsys.readouterr()
    assert img2seq("compare", other.path, run.path, "--output", tiny / "compared") == 0
    assert "highest CIDEr-D, 0.9000" in capsys.readouterr().out
    entries = {entry["name"]: entry for entry in read_json(tiny / "compared/compare.json")["runs"]}
    assert entries["run"]["validation_scores"]["cider_d"] == 0.9
    assert entries["other"]["best_by"] == "loss"


def test_the_progress_line_and_the_log_name_the_scores(tiny: Path, scripted: Callable[[list[float]], None]) -> None:
    scripted([0.2, 0.1])
    run = run_of(tiny, GREEDY, BY_CIDER)
    lines = [line for line in run.log.read_text().splitlines() if "CIDEr-D" in line]
    assert "CIDEr-D 0.2000 (best so far)" in lines[0]
    assert "50% of captions distinct" in lines[0]
    assert "(best so far)" not in lines[1]


def test_early_stopping_waits_for_a_better_score(tiny: Path, scripted: Callable[[list[float]], None]) -> None:
    scripted([0.3, 0.5, 0.4, 0.5, 0.4, 0.6])
    run = run_of(
        *(tiny, GREEDY, BY_CIDER, f"{SECTION}.sample_interval=2", "globals.basic_experiment.n_epochs=9"),
        "globals.training_control.early_stopping_patience=3",
    )
    assert newest(run).step == 10  # the best is that of step 4


def test_scores_may_begin_and_end_when_a_run_is_resumed(tiny: Path) -> None:
    run_of(tiny, "globals.basic_experiment.n_epochs=1")
    run = run_of(tiny, GREEDY, "globals.basic_experiment.n_epochs=2", resume=True)
    run = run_of(tiny, "globals.basic_experiment.n_epochs=3", resume=True)
    found = [(row["iteration"], bool(row["cider_d"])) for row in rows_of(run)]
    assert found == [("5", False), ("10", True), ("15", False)]


def test_what_checkpoints_are_chosen_by_stays(tiny: Path) -> None:
    run_of(tiny, GREEDY, BY_CIDER, "globals.basic_experiment.n_epochs=1")
    for changed in ([GREEDY], [f"{SECTION}.caption_metrics.method=beam", BY_CIDER]):
        with pytest.raises(RunError, match="cannot be resumed"):
            run_of(tiny, *changed, "globals.basic_experiment.n_epochs=2", resume=True)
    assert newest(run_of(tiny, GREEDY, BY_CIDER, "globals.basic_experiment.n_epochs=2", resume=True)).step == 10


def test_a_score_that_is_not_measured_cannot_choose(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="needs caption_metrics"):
        run_of(tiny, BY_CIDER)


def test_an_old_position_has_no_score(tiny: Path) -> None:
    run = run_of(tiny, "globals.basic_experiment.n_epochs=1")
    path = newest(run).path / "state.json"
    state = json.loads(path.read_text())
    assert state["position"].pop("best_score", "absent") is None
    from img2seq.training.state import TrainState

    assert TrainState.from_json(state["position"]).best_score is None
    with pytest.raises(ValueError, match="step"):
        TrainState.from_json({name: value for name, value in state["position"].items() if name != "step"})


@pytest.mark.figures
def test_curves_show_scores_where_there_are_any(tiny: Path) -> None:
    run = run_of(tiny, GREEDY, f"{SECTION}.sample_interval=2")
    curve = read_curve(run)
    assert [step for step, _ in curve.scores["cider_d"]] == [2, 4, 6, 8, 10]
    losses, scores = draw_losses([curve], title="").axes
    assert {str(line.get_label()).partition(": ")[2] for line in scores.get_lines()} == {
        "CIDEr-D",
        "BLEU-4",
        "distinct captions, share",
    }
    assert losses.get_xlim() == scores.get_xlim()
    assert (run.figures / "training_curve_LOSS.png").stat().st_size > 10_000
