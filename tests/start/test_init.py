"""`img2seq init`: what it finds, what it chooses and writes, and that what it wrote trains as it is, in real processes."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SHARED, img2seq, needs_flickr8k, write_tiny_data
from img2seq.config.load import load_config
from img2seq.config.outputs import SequenceModel
from img2seq.config.schema import Experiment
from img2seq.data.sources.read import read_captions
from img2seq.model.pypi_weights import installed_weights
from img2seq.run.folder import read_json
from img2seq.start import init as start
from img2seq.start.recipe import RECIPES, Recipe, evaluation_interval, recipe_for, text_of, valid_size
from in_formats import FORMATS, KEYS, coco_mini, with_sides

needs_coco_mini = pytest.mark.skipif(
    not (SHARED / "data/coco_mini").is_dir(), reason="needs ../shared/data/coco_mini, which is not here"
)
needs_weights = pytest.mark.skipif(installed_weights(start.ENCODER) is None, reason="needs the pretrained weights")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of 24 pictures beside captions.csv, in the folder where the command is run."""
    write_tiny_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("images")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


# --- real processes ----------------------------------------------------------------------------------------


def run(command: str, folder: Path, *more: str) -> str:
    """Run a command that was printed, as it stands, in a process of its own; return what it said."""
    words = [sys.executable, "-m", *shlex.split(command), *more]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout + done.stderr


def trained_as_written(folder: Path, command: str, verbs: list[str]) -> str:
    """Run `init` and the commands that it prints, training for an epoch only; return what the last one said."""
    said = run(command, folder)
    commands = [line.strip() for line in said.partition("next:\n")[2].splitlines()]
    assert [shlex.split(line)[1] for line in commands] == ["train", "train", "compare", "evaluate", "caption"]
    for line in commands:
        verb = shlex.split(line)[1]
        if verb in verbs and not ("--inputs=[]" in line and "compare" not in verbs):
            said = run(line, folder, *(["--globals.basic_experiment.n_epochs=1"] if verb == "train" else []))
    return said


@needs_coco_mini
@needs_weights
def test_photographs_with_a_table_from_a_spreadsheet_train_and_every_printed_command_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = [("filename", "title", "description")]
    for sample in coco_mini():
        (tmp_path / "photos" / sample.name).write_bytes(sample.data)
        rows += [(sample.name, "Café", text.strip()) for text in sample.captions]
    with (tmp_path / "captions.csv").open("w", encoding="cp1252", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    said = trained_as_written(tmp_path, "img2seq init photos captions.csv", ["train", "compare", "evaluate", "caption"])
    assert len(said.splitlines()) == 16
    info = load_config(tmp_path / "experiment.yaml").output.output_info
    assert (info.image_column, info.caption_columns, info.delimiter, info.encoding) == (
        "filename", ["description"], ";", "cp1252",
    )  # fmt: skip
    found = read_json(tmp_path / "runs/photos/evaluation/metrics.json")
    assert found["most_frequent_caption"]["images"] == 16


@needs_flickr8k
@needs_weights
def test_a_flickr8k_folder_with_its_token_file_trains(tmp_path: Path) -> None:
    source, lines = SHARED / "data/flickr8k", list[str]()
    (tmp_path / "Flicker8k_Dataset").mkdir()
    with (source / "captions_all.csv").open(encoding="utf-8") as file:
        for n, row in enumerate(csv.DictReader(file)):
            if n == 200:  # 40 photographs
                break
            lines.append(f"{row['ID']}.jpg#{n % 5}\t{row['Sequence']}")
            shutil.copy(source / "images" / f"{row['ID']}.jpg", tmp_path / "Flicker8k_Dataset")
    (tmp_path / "Flickr8k_text").mkdir()
    (tmp_path / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines), encoding="utf-8")
    said = trained_as_written(tmp_path, "img2seq init Flicker8k_Dataset", ["train", "evaluate", "caption"])
    assert len(said.splitlines()) == 10
    info = load_config(tmp_path / "experiment.yaml").output.output_info
    assert (info.output_source, info.format) == ("Flickr8k_text/Flickr8k.token.txt", "flickr")


@needs_coco_mini
@needs_weights
def test_a_folder_of_pictures_with_text_files_trains(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    for sample in coco_mini()[:40]:
        (tmp_path / "my photos" / sample.name).write_bytes(sample.data)
        text = "\n".join(sample.captions)
        (tmp_path / "my photos" / f"{sample.image_id}.txt").write_text(text, encoding="utf-8")
    said = trained_as_written(tmp_path, "img2seq init 'my photos'", ["train", "evaluate", "caption"])
    assert len(said.splitlines()) == 10
    assert load_config(tmp_path / "experiment.yaml").globals.basic_experiment.output_folder == "runs/my_photos"


# --- what is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_by_the_settings_that_are_written_down(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path / "tiny", n=16)
    captions = read_captions(tmp_path / "tiny/captions.csv").captions
    files = sorted((tmp_path / "tiny/images").iterdir())
    samples = with_sides([(path.name, path.read_bytes(), tuple(captions[path.stem])) for path in files])
    (tmp_path / "data").mkdir()
    source, images = FORMATS[name](samples, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    table = [] if source == images else [source]
    assert img2seq("init", images, *table) == 0
    config = load_config("experiment.yaml")
    info = config.output.output_info
    again, guessed = read_captions(info.output_source, info), read_captions(source)
    assert (again.captions, again.paths, again.splits) == (guessed.captions, guessed.paths, guessed.splits)
    assert info.format == KEYS[name]
    assert config.globals.basic_experiment.splits == "from_data"
    assert "\n    valid_size" not in Path("experiment.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("photo\tcomment\n000.png\tein Hündchen\n", "utf-8", {"delimiter": "tab", "image_column": "photo", "encoding": "utf-8"}),
        ("key|caption_1|caption_2\n000|a|b\n", "utf-16", {"delimiter": "|", "id_column": "key", "encoding": "utf-16", "caption_columns": ["caption_1", "caption_2"]}),
        ("ID,Sequence\n000,a dog\n", "utf-8", {"delimiter": ",", "id_column": "ID", "caption_columns": ["Sequence"]}),
    ],
)  # fmt: skip
def test_what_was_guessed_of_a_table_is_written_down(
    text: str, encoding: str, expected: dict[str, object], photos: Path
) -> None:
    header, row = text.splitlines(keepends=True)
    rows = (row.replace("000", f"{i:03}") for i in range(24))
    Path("table.txt").write_bytes("".join([header, *rows]).encode(encoding))
    assert img2seq("init", photos, "table.txt") == 0
    info = load_config("experiment.yaml").output.output_info
    assert {name: getattr(info, name) for name in expected} == expected


def test_what_a_person_says_of_a_table_is_taken(photos: Path) -> None:
    rows = "".join(f"{i:03};;a dog number {i}\n" for i in range(24))
    Path("t.csv").write_text("Nummer;Titel;Was man sieht\n" + rows, encoding="utf-8")
    assert img2seq("init", photos, "t.csv") == 2
    assert img2seq("init", photos, "t.csv", "--id-column", "Nummer", "--caption-columns", "Was man sieht") == 0
    info = load_config("experiment.yaml").output.output_info
    assert (info.id_column, info.caption_columns) == ("Nummer", ["Was man sieht"])


def test_the_one_table_beside_the_photographs_is_found_and_named(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.csv").write_text("day,weather\nMonday,rain\n")
    Path("one.csv").write_text("ID,Sequence\n000,a dog\n")  # a part of them is no second choice
    assert img2seq("init", photos) == 0
    assert "captions are taken from captions.csv" in capsys.readouterr().out
    assert load_config("experiment.yaml").output.output_info.output_source == "captions.csv"


def test_without_captions_one_error_names_where_they_were_looked_for(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("captions.csv").unlink()
    assert img2seq("init", photos) == 2
    error = error_of(capsys)
    for part in (
        "images: expected captions",
        "x.txt beside x.jpg",
        "metadata.csv",
        ".csv",
        "24 pictures",
        "init images TABLE",
    ):
        assert part in error
    assert not Path("experiment.yaml").exists()


def test_of_two_tables_none_is_chosen(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("captions.csv", "other.csv")
    assert img2seq("init", photos) == 2
    error = error_of(capsys)
    assert "captions.csv: table: 24 images" in error
    assert "other.csv" in error


def test_photographs_and_table_in_the_wrong_order_are_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert img2seq("init", "captions.csv", photos) == 2
    assert "img2seq init images captions.csv" in error_of(capsys)


def test_rows_and_ids_that_cannot_be_used_are_said_and_do_not_stop_the_training(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("captions.csv").open("a") as file:
        file.write("zzz,no such picture\n001,\n")
    assert img2seq("init", photos) == 0
    out = capsys.readouterr().out
    for part in (
        "left out (on_bad_data: skip)",
        "1 row(s) of captions.csv cannot be used",
        "1 ID(s) with captions have no image",
    ):
        assert part in out
    assert load_config("experiment.yaml").globals.basic_experiment.on_bad_data == "skip"
    assert img2seq("train", "experiment.yaml", "--inputs=[]", "--globals.basic_experiment.n_epochs=1") == 0


def test_one_picture_is_too_few(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.csv").write_text("ID,Sequence\n000,a dog\n")
    assert img2seq("init", photos, "one.csv") == 2
    assert "at least two images with captions to train on, found 1 of 24 images" in error_of(capsys)


# --- what is chosen and written ----------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiment.yaml").write_text("mine")
    assert img2seq("init", photos) == 2
    assert "--overwrite" in error_of(capsys)
    assert Path("experiment.yaml").read_text() == "mine"
    assert img2seq("init", photos, "--overwrite") == 0
    assert load_config("experiment.yaml").globals.basic_experiment.output_folder == "runs/images"
    assert img2seq("init", photos, "--output", ".") == 2


def test_the_run_folder_is_one_that_is_free(photos: Path) -> None:
    Path("runs/images").mkdir(parents=True)
    Path("runs/images_2_text").mkdir()
    assert img2seq("init", photos) == 0
    assert load_config("experiment.yaml").globals.basic_experiment.output_folder == "runs/images_3"


def written(photos: Path) -> Experiment:
    assert img2seq("init", photos, "--overwrite") == 0
    return load_config("experiment.yaml")


def test_a_frozen_encoder_never_comes_without_pretrained_weights(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for weights in (None, "pypi:tf_efficientnet_lite0"):
        monkeypatch.setattr(start, "installed_weights", lambda encoder, found=weights: found)
        model = written(photos).inputs[0].model
        assert model.freeze_pretrained_model
        assert (model.pretrained_model, model.pretrained_weights) == (weights is None, weights)
        assert ("model hub" in capsys.readouterr().out) == (weights is None)


def test_the_file_says_why_beside_each_choice(photos: Path) -> None:
    written(photos)
    lines = Path("experiment.yaml").read_text().splitlines()
    for key in (
        "n_epochs",
        "valid_size",
        "sample_interval",
        "split_on",
        "min_freq",
        "size",
        "freeze_pretrained_model",
        "format",
    ):
        (line,) = [line for line in lines if line.strip().startswith(f"{key}:")]
        assert "  # " in line, line
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"up to {recipe.most_captions}")
def test_the_file_is_what_its_recipe_says(recipe: Recipe, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "recipe_for", lambda n: recipe)
    settings = written(photos).globals
    assert settings.basic_experiment.n_epochs == recipe.n_epochs
    assert (settings.optimization.lr, settings.optimization.lr_lb) == (recipe.lr, recipe.lr_lb)
    assert settings.model.ema_decay == recipe.ema_decay
    assert settings.optimization.wd == recipe.wd
    assert max(map(len, Path("experiment.yaml").read_text().splitlines())) <= 140


@pytest.mark.parametrize(
    ("caption", "split_on"),
    [("一只棕色的狗在草地上奔跑", ""), ("茶色い犬が芝生の上を走っている", ""), ("สุนัขสีน้ำตาลกำลังวิ่งบนสนามหญ้า", ""),
     ("كلب بني يركض على العشب", "words"), ("एक भूरा कुत्ता घास पर दौड़ रहा है", "words"), ("a brown dog runs", "words")],
)  # fmt: skip
def test_captions_are_cut_as_their_script_asks(
    caption: str, split_on: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i:03},{caption}\n" for i in range(24))
    Path("captions.csv").write_text(f"ID,Sequence\n{rows}", encoding="utf-8")
    info = written(photos).output.output_type_info
    assert info.split_on == split_on
    assert ("--no-repeat-ngram" in capsys.readouterr().out) == (split_on == "words"), "characters repeat in pairs"
    assert info.lowercase is False, "there is nothing to lower"
    assert img2seq("train", "experiment.yaml", "--inputs=[]", "--globals.basic_experiment.n_epochs=1") == 0
    assert img2seq(
        "train", "experiment.yaml", "--inputs=[]", "--overwrite", "--outputs.output_type_info.split_on=words"
    ) == (2 if split_on == "" else 0)


def test_begun_with_another_captioner_every_printed_command_runs(
    photos: Path, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text_only, run = finished_runs
    assert img2seq("init", str(photos), "captions.csv", "--pretrained-run", str(run)) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.partition("next:\n")[2].splitlines()]
    assert [words[1] for words in commands] == ["train", "train", "compare", "evaluate", "caption"]
    for words in commands:
        assert img2seq(*words[1:]) == 0
    config, other = (load_config(folder / "config.yaml") for folder in (Path("runs/images"), run))
    assert config.globals.model.pretrained_run == str(run)
    models = [of.output.model for of in (config, other)]
    assert len({model.embedding_dim for model in models if isinstance(model, SequenceModel)}) == 1
    assert all(isinstance(model, SequenceModel) for model in models)
    assert read_json(Path("runs/images/pretrained.json"))["run"] == str(run)
    capsys.readouterr()
    assert img2seq("init", str(photos), "captions.csv", "--overwrite", "--pretrained-run", str(text_only)) == 2
    assert "one image input, found 0" in error_of(capsys)
    assert img2seq("init", str(photos), "captions.csv", "--overwrite", "--pretrained-run", "runs") == 2
    assert "runs" in error_of(capsys)


def test_a_captioner_of_many_photographs_that_is_at_hand_is_named(
    photos: Path, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text_only, run = finished_runs
    for name, source, n in (
        ("small", run, 999),
        ("text", text_only, 9000),
        ("large", run, 6000),
        ("middle", run, 3000),
    ):
        shutil.copytree(source, Path("runs", name))
        (Path("runs", name) / "split.json").write_text(json.dumps({"train": [str(i) for i in range(n)], "valid": []}))
    Path("runs/broken").mkdir()
    Path("runs/broken/config.yaml").write_text("- no run")
    written(photos)
    assert "runs/large, of 6,000 photographs: --pretrained-run runs/large (" in capsys.readouterr().out
    shutil.rmtree("runs")
    assert img2seq("init", str(photos), "captions.csv", "--overwrite") == 0
    assert ": --pretrained-run RUN (" in capsys.readouterr().out


@pytest.mark.parametrize("n", [2, 3, 4, 24, 80, 400, 7_000, 100_000, 10**7])
def test_both_sides_of_the_split_have_enough(n: int) -> None:
    held_out = valid_size(n)
    assert 1 <= held_out <= 1000
    assert held_out <= n // 2
    assert held_out >= 16 or n < 64


@pytest.mark.parametrize("n", [2, 64, 200])
def test_a_run_of_very_few_captions_is_evaluated_at_its_end(n: int) -> None:
    recipe = recipe_for(n)
    assert evaluation_interval(recipe, n) == -(-n // recipe.batch_size) * recipe.n_epochs


@pytest.mark.parametrize("n", [201, 320, 1_000, 1_001, 1_800, 30_000, 10**7])
def test_a_run_has_about_ten_evaluations(n: int) -> None:
    recipe = recipe_for(n)
    steps = -(-n // recipe.batch_size) * recipe.n_epochs
    assert 10 <= steps // evaluation_interval(recipe, n) <= 20
    assert [r.most_captions for r in RECIPES] == sorted(r.most_captions for r in RECIPES)


def test_one_endless_caption_does_not_decide_the_length_of_all(photos: Path) -> None:
    with Path("captions.csv").open("a") as file:
        file.write(f"000,{'very ' * 4000}long\n")
    config = written(photos)
    assert config.output.output_type_info.max_length != "max"
    assert config.output.sampling_config.generated_sequence_length < 100
    text = text_of(["a b c"] * 999 + ["a " * 4000])
    assert (text.usual, text.longest) == (4, 4001)


def test_names_that_mean_something_in_yaml_are_read_back_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("a: b #c", "on", "1e3", "'quoted'", "[x]", "müde 猫", "{y}"):
        shutil.copytree("images", name)
        rows = "".join(f"{i:03},a dog {i % 3}\n" for i in range(24))
        Path("t.csv").write_text(f'"{name}",Sequence\n{rows}', encoding="utf-8")
        assert img2seq("init", name, "t.csv", "--id-column", name, "--overwrite") == 0
        config = load_config("experiment.yaml")
        assert config.inputs[0].input_info.input_source == name
        assert config.output.output_info.id_column == name
