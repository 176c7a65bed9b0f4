"""The comparison: its numbers, its interval, and a page that needs nothing else."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from img2seq.metrics import java, score
from img2seq.metrics.diversity import measure_diversity
from img2seq.report import comparison_page
from img2seq.report.comparison import bootstrap, gain_over, read_runs, shuffled_gain
from img2seq.report.comparison_page import compare
from img2seq.report.evaluation_page import METRIC_NAMES, evaluation_page
from img2seq.run.folder import read_json
from img2seq.run.write import write_json


def test_the_gain_is_the_difference_of_the_losses_whichever_run_comes_first(
    finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    for order in (finished_runs, finished_runs[::-1]):
        folder = tmp_path / order[0].name
        compare(order, folder)
        data = json.loads((folder / "compare.json").read_text())
        loss = {run["name"]: run["best_validation_loss"] for run in data["runs"]}
        gain = data["gain"]
        assert (gain["baseline"], gain["run"]) == ("text", "image")
        assert gain["nats_per_token"] == pytest.approx(loss["text"] - loss["image"], abs=1e-5)
        assert gain["ci95"][0] < gain["nats_per_token"] < gain["ci95"][1]
        assert gain["ci95"][0] > 0


def test_shuffled_images_cost_a_model_that_uses_them_and_a_blind_one_has_none(finished_runs: tuple[Path, Path]) -> None:
    text, image = read_runs(finished_runs)
    assert shuffled_gain(text) is None
    measured = shuffled_gain(image)
    assert measured is not None
    assert measured[1][0] > 0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        tokens = rng.integers(5, 15, 60).astype(float)
        nats = tokens * 0.3 + rng.normal(0, 3, 60)
        _, (low, high) = bootstrap(nats, tokens, seed=trial)
        covered += low <= 0.3 <= high
    assert 86 <= covered <= 100


def test_runs_whose_tokens_differ_are_not_compared(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(finished_runs[1], other)
    summary = read_json(other / "validation/summary.json")
    write_json(other / "validation/summary.json", summary | {"tokenizer": "another"})
    gain = gain_over(*read_runs([finished_runs[0], other]))
    assert gain.nats_per_token is None
    assert "vocabularies differ" in gain.refused
    assert "cannot be compared" in compare([finished_runs[0], other], tmp_path / "c")


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_is_one_file_that_reads_offline_in_light_and_dark(
    finished_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    compare(finished_runs, tmp_path)
    page = (tmp_path / "report.html").read_text()
    parser = _Links()
    parser.feed(page)
    assert len(parser.links) >= 4
    assert all(link.startswith("data:") for link in parser.links)
    assert not re.search(r"url\(|@import|<script", page)
    assert page.count("prefers-color-scheme: dark") >= 3
    for entry in read_json(finished_runs[1] / "validation/captions.json"):
        assert entry["caption"] in page
        assert entry["true"][0] in page


@pytest.mark.parametrize(
    ("interval", "may_be_chance"), [((-0.1, 0.2), True), ((0.1, 0.2), False), ((-0.2, -0.1), False)]
)
def test_the_headline_says_what_may_be_chance(
    interval: tuple[float, float],
    may_be_chance: bool,
    finished_runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison_page, "gain_over", lambda *runs: replace(gain_over(*runs), ci95=interval))
    comparison_page.compare(finished_runs, tmp_path / "both")
    headline = re.search(r'<p class="headline">(.*)</p>', (tmp_path / "both/report.html").read_text(encoding="utf-8"))
    assert headline is not None
    assert ("which may be chance" in headline[1]) == may_be_chance


def test_captions_cannot_smuggle_markup_into_the_page(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "evil"
    shutil.copytree(finished_runs[1], run)
    entries = read_json(run / "validation/captions.json")
    entries[0]["caption"] = "<script>alert(1)</script>"
    write_json(run / "validation/captions.json", entries)
    compare([run], tmp_path / "c")
    assert "<script" not in (tmp_path / "c/report.html").read_text()


def test_the_figures_are_pictures(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    compare(finished_runs, tmp_path)
    for name in ("losses", "images"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(tmp_path / f"{name}.png") as figure:
            colours = figure.convert("RGB").getcolors(1 << 20)
            assert colours is not None
            assert len(colours) > 20


def test_scores_stand_in_a_table_of_their_own(finished_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Beside the seven columns of the runs they were cut off at the page's width."""
    import shutil

    run = Path(shutil.copytree(finished_runs[1], tmp_path / "image"))
    scores = dict.fromkeys(METRIC_NAMES, 0.5) | {"loss": 1.0}
    write_json(run / "evaluation/metrics.json", scores)
    compare([finished_runs[0], run], tmp_path / "c")
    page = (tmp_path / "c/report.html").read_text()
    headers = [re.findall(r"<th>([^<]*)</th>", row) for row in re.findall(r"<tr><th>run</th>.*</tr>", page)]
    assert [len(names) for names in headers] == [7, 1 + len(METRIC_NAMES)]
    assert headers[1][1:] == list(METRIC_NAMES.values())
    compare([finished_runs[0]], tmp_path / "d")
    assert "Scores of their captions" not in (tmp_path / "d/report.html").read_text()


def test_a_page_of_scores_has_whole_words_and_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    found = score({"1": "a dog"}, {"1": ["a dog", "the dog"]}, java_metrics=())
    metrics = found.corpus | {"intervals_95": found.intervals, "data": "x.json", "notes": found.notes}
    metrics |= {
        "not_computed": {"spice": "not computed: it needs a jar"},
        "document_frequency": found.document_frequency,
    }
    diversity = measure_diversity({"1": "a dog"})
    metrics["diversity"] = asdict(diversity) | {"vocabulary_used": diversity.vocabulary_used}
    page = evaluation_page([], metrics, n_images=1)
    headline = re.search(r'<p class="headline">(.*)</p>', page)
    assert headline is not None
    pieces = re.split(r'<span class="whole">|</span>', headline[1])
    assert [piece.strip() for piece in pieces[::2]] == ["", "", "over", "."]  # all else is kept on one line
    assert "BLEU-4 <em>" in pieces[3]
    assert ".whole { white-space: nowrap; }" in page
    assert '<td>SPICE</td><td colspan="2" class="text">Not computed: it needs a jar.</td>' in page
    assert "over 1 image" in re.sub("<[^>]*>", "", headline[1])
    assert "references of 1 image." in page


def test_spice_without_its_jars_shows_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "spice/lib").mkdir(parents=True)
    monkeypatch.setattr(java, "_pycocoevalcap", lambda: tmp_path)
    with pytest.raises(java.NotComputed) as error:
        java.spice(["a dog"], [["a dog"]])
    assert "stanford-corenlp-3.6.0.jar" in str(error.value)
    assert str(tmp_path) not in str(error.value)
