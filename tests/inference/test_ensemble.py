"""Several runs that caption as one, and mirror images: from Python and from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import built_once, img2seq, tiny_config, write_tiny_data, write_yaml
from img2seq import Captioner
from img2seq.errors import ConfigError, ModelError
from img2seq.inference.predictor import Caption
from img2seq.run.folder import read_json

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"method": "greedy"},
    "beam": {"beam_size": 3},
    "groups": {"beam_size": 4, "beam_groups": 2, "diversity": 0.5, "n_best": 4},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "no_repeat_ngram": 2, "min_length": 3},
}


def train(folder: Path, name: str, **changes: Any) -> Path:
    """Train a tiny run of the data in a folder, from another seed, or of another size."""
    from img2seq.config.load import ConfigFiles, load
    from img2seq.training.loop import train as train_run

    config = tiny_config(folder)
    config["globals"]["basic_experiment"] |= {
        "output_folder": str(folder / name),
        "n_epochs": 4,
        "seed": changes.get("seed", 0),
    }
    config["inputs"][0]["input_type_info"] |= {"auto_augment": False, "size": [changes.get("size", 32)]}
    config["outputs"][0]["output_type_info"]["min_freq"] = changes.get("min_freq", 1)
    if "valid_ids" in changes:
        (folder / f"{name}.txt").write_text("\n".join(changes["valid_ids"]) + "\n")
        config["globals"]["basic_experiment"]["manual_valid_ids_file"] = str(folder / f"{name}.txt")
    train_run(load(ConfigFiles(experiment=str(write_yaml(folder / f"{name}.yaml", config)))))
    return folder / name


def _train_three(folder: Path) -> None:
    write_tiny_data(folder)
    held_out = [f"{i:03}" for i in range(8)]
    train(folder, "one", valid_ids=held_out)
    train(folder, "large", seed=1, size=48, valid_ids=held_out)
    train(folder, "otherwise split", seed=2, valid_ids=[f"{i:03}" for i in range(4, 12)])
    write_tiny_data(folder / "other", captions=3)
    train(folder / "other", "words")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs one, large (its pictures have another size), otherwise split, and other/words (another tokenizer)."""
    return built_once(tmp_path_factory, "ensemble", _train_three)


def pictures(folder: Path, n: int = 6) -> list[Path]:
    return [folder / f"images/{i:03}.png" for i in range(n)]


def same(one: list[Caption], other: list[Caption]) -> None:
    assert [caption.tokens for caption in one] == [caption.tokens for caption in other]
    for a, b in zip(one, other, strict=True):
        assert a.token_log_probabilities == pytest.approx(b.token_log_probabilities, abs=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_one_run_twice_is_that_run(run: Path, images: Path, settings: dict[str, Any]) -> None:
    paths = [images / f"{i:03}.png" for i in range(6)]
    same(Captioner.load([run, run]).caption(paths, **settings), Captioner.load(run).caption(paths, **settings))


def test_a_run_and_its_export_are_one_model(run: Path, exported: Path, images: Path) -> None:
    paths = [images / f"{i:03}.png" for i in range(6)]
    expected = Captioner.load(run).caption(paths, beam_size=3)
    for order in ([run, exported], [exported, run], [exported, exported]):
        captioner = Captioner.load(order)
        same(captioner.caption(paths, beam_size=3), expected)
        captioner.prepare_for_many()
        same(captioner.caption(paths, beam_size=3), expected)


def test_each_model_gets_a_picture_in_its_own_size(runs: Path) -> None:
    """Of a caption's first token, the probabilities are the mean of those that each run has alone."""
    captioner = Captioner.load([runs / "one", runs / "large"])
    assert sorted(spec.height for spec in captioner.specs.values()) == [32, 48]
    together = captioner.caption(pictures(runs), method="greedy")
    assert len(together) == 6
    alone = [Captioner.load(runs / name) for name in ("one", "large")]
    for path, caption in zip(pictures(runs), together, strict=True):
        first = caption.tokens[0]
        of_each = [c.caption(path, beginning=first, n_best=1) for c in alone]
        assert all(one.tokens[0] == first for one in of_each)
        by_first = [first_token_probabilities(c, path) for c in alone]
        number = alone[0].loaded.tokenizer.tokens.index(first)
        mean = (by_first[0] + by_first[1]) / 2
        assert caption.token_probabilities[0] == pytest.approx(float(mean[number] / mean[4:].sum()), abs=1e-5)


def first_token_probabilities(captioner: Captioner, path: Path) -> np.ndarray:
    """Return (V,) probabilities of what a model begins with, of all tokens."""
    from img2seq.data.image import from_any
    from img2seq.generation.model_step import ModelStep

    pixels = captioner.predictor.pixel_batch("photo", [from_any(path, captioner.spec)])
    model = captioner.trained.model
    with torch.inference_mode():
        step = ModelStep(model.decoder, model.encode(pixels={"photo": torch.tensor(pixels)}, features={}))
        step.begin(n_rows=1, group=1, max_tokens=4)
        found: np.ndarray = step.next_logits(torch.tensor([0])).softmax(1)[0].numpy()
    return found


def test_other_tokenizers_are_one_error_that_names_both(runs: Path) -> None:
    with pytest.raises(ModelError) as error:
        Captioner.load([runs / "one", runs / "other/words"])
    assert str(runs / "one") in str(error.value)
    assert str(runs / "other/words") in str(error.value)


def test_no_run_is_an_error() -> None:
    with pytest.raises(ConfigError, match="found none"):
        Captioner.load([])


def test_a_mirror_image_is_a_second_picture(run: Path, images: Path, tmp_path: Path) -> None:
    """A picture and its mirror image have one caption; of a symmetric picture it is that of the run alone."""
    with Image.open(images / "003.png") as picture:
        half = picture.convert("RGB").resize((32, 32))
    pixels = np.asarray(half).copy()
    captioner, alone = Captioner.load(run, mirror=True), Captioner.load(run)
    there, back = captioner.caption([pixels, pixels[:, ::-1].copy()], beam_size=3)
    same([there], [back])
    assert there.log_probability != pytest.approx(alone.caption(pixels, beam_size=3).log_probability, abs=1e-6)
    pixels[:, 16:] = pixels[:, 15::-1]
    same([captioner.caption(pixels)], [alone.caption(pixels)])


# --- the command line --------------------------------------------------------------------------------------


def test_runs_come_before_pictures(runs: Path, tmp_path: Path) -> None:
    both = (runs / "one", runs / "large")
    assert img2seq("caption", *both, runs / "images", "--output", tmp_path / "c.jsonl", "--beam-size", "3") == 0
    found = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    expected = Captioner.load(list(both)).caption(pictures(runs, 24), beam_size=3)
    assert [row["caption"] for row in found] == [caption.text for caption in expected]


def test_a_run_is_never_taken_for_pictures(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = runs / "images/000.png"
    for paths in ((runs / "large",), (picture, runs / "large"), (runs / "large", picture, runs / "one")):
        assert img2seq("caption", runs / "one", *paths, "--output", tmp_path / "c.txt") == 2
        assert "runs, then pictures" in capsys.readouterr().err
    assert not (tmp_path / "c.txt").exists()


def test_a_folder_of_pictures_may_hold_a_configuration(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "images", tmp_path / "photos")
    shutil.copy(runs / "one.yaml", tmp_path / "photos/config.yaml")
    assert img2seq("caption", runs / "one", tmp_path / "photos", "--output", tmp_path / "c.txt") == 0
    assert len((tmp_path / "c.txt").read_text().splitlines()) == 24


def test_several_runs_are_evaluated_on_what_was_held_out_of_the_first(runs: Path, tmp_path: Path) -> None:
    both = (runs / "one", runs / "large")
    assert img2seq("evaluate", *both, "--output", tmp_path / "both") == 0
    metrics = read_json(tmp_path / "both/metrics.json")
    assert metrics["images"] == 8
    assert len(set(metrics["made_from"]["checkpoints_sha256"])) == 2
    written = {row["image_id"]: row["caption"] for row in read_json(tmp_path / "both/captions.json")}
    expected = Captioner.load(list(both)).caption(pictures(runs, 8))
    assert [written[path.stem] for path in pictures(runs, 8)] == [caption.text for caption in expected]
    assert img2seq("evaluate", *both, "--output", tmp_path / "both") == 0
    assert img2seq("evaluate", *both, "--output", tmp_path / "both", "--mirror") == 2
    assert img2seq("evaluate", *both[::-1], "--output", tmp_path / "both") == 2


def test_one_run_twice_scores_as_it_does_alone(runs: Path, exported: Path, tmp_path: Path) -> None:
    one = runs / "one"
    assert img2seq("evaluate", one, "--output", tmp_path / "alone") == 0
    assert img2seq("evaluate", one, one, "--output", tmp_path / "twice") == 0
    assert read_json(tmp_path / "alone/captions.json") == read_json(tmp_path / "twice/captions.json")
    alone, twice = (read_json(tmp_path / name / "metrics.json") for name in ("alone", "twice"))
    assert {key: twice[key] for key in ("cider_d", "bleu_4", "images", "data")} == {
        key: alone[key] for key in ("cider_d", "bleu_4", "images", "data")
    }


def test_exports_are_evaluated_on_captions_that_are_given(
    exported: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert img2seq("evaluate", exported, "--mirror", "--output", tmp_path / "e") == 2
    assert "--captions" in capsys.readouterr().err
    captions = ("--captions", images.parent / "captions.csv", "--images", images)
    assert img2seq("evaluate", exported, "--mirror", *captions, "--output", tmp_path / "e") == 0
    assert read_json(tmp_path / "e/metrics.json")["images"] == 32
    assert img2seq("evaluate", exported, "--mirror", *captions, "--output", tmp_path / "e", "--precision", "int8") == 2
    assert "precision" in capsys.readouterr().err  # smaller weights write other captions


def test_pictures_that_another_run_was_trained_on_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (runs / "one", runs / "otherwise split")
    assert img2seq("evaluate", *both, "--output", tmp_path / "e") == 2
    assert "otherwise split: was trained on 4 images of the 8" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
    captions = ("--captions", runs / "captions.csv", "--images", runs / "images")
    assert img2seq("evaluate", *both, *captions, "--output", tmp_path / "e") == 0


def test_several_runs_need_a_folder_of_their_own(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert img2seq("evaluate", runs / "one", runs / "large") == 2
    assert "--output DIR" in capsys.readouterr().err
