"""The command line as a user meets it: real processes, exit codes, one clear error and no traceback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import children
from conftest import ROOT, SHARED, needs_tutorial, tiny_config, write_tiny_data, write_yaml
from img2seq.cli import main as cli
from img2seq.config.load import load_config


def img2seq(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "img2seq", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a verb in this process; return exit code, standard output and standard error."""
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_importing_and_help_load_neither_torch_nor_timm() -> None:
    program = "import sys; import img2seq; from img2seq.cli import main as cli; cli.run(['config', 'schema']); sys.stderr.write(str({'torch', 'timm', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "set()"
    assert json.loads(done.stdout)["title"] == "Experiment"


def test_the_console_command_and_the_module_are_one() -> None:
    assert img2seq("--version").stdout.startswith("img2seq ")
    assert "train" in img2seq("--help").stdout


@needs_tutorial
def test_the_tutorials_command_line_works_word_for_word(tmp_path: Path) -> None:
    data = tmp_path / "eir_tutorials/c_sequence_output/03_image_captioning/data"
    write_tiny_data(data, n=48)
    for path in (SHARED / "tutorial/conf").iterdir():
        shutil.copy(path, tmp_path)
    common = ["--global_configs", "globals.yaml", "--fusion_configs", "fusion.yaml", "--output_configs", "output.yaml"]
    small = [
        "--globals.basic_experiment.valid_size=10",
        "--globals.basic_experiment.dataloader_workers=0",
        "--output.output_type_info.min_freq=2",
    ]
    for name, inputs in (
        ("text", []),
        (
            "image",
            [
                "--input_configs",
                "inputs_resnet18.yaml",
                "--inputs_resnet18.model_config.pretrained_model=False",
                "--inputs_resnet18.model_config.model_type=test_resnet",
            ],
        ),
    ):
        place = f"--globals.basic_experiment.output_folder=runs/{name}"
        done = children.command("train", *common, *inputs, *small, place, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"runs/{name}/samples/6/auto/0_generated.txt").exists()
    done = children.command("compare", "runs/text", "runs/image", "--output", "compared", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "compared/compare.json").read_text())["gain"]["run"] == "image"


# What is typed, and what the one line of its error must say.
TYPED = {
    "trian": ["Did you mean 'train'?"],
    "fly": ["'fly'", "train, caption, serve"],
    "runs shwo runs/x": ["Did you mean 'show'?"],
    "data chek x": ["Did you mean 'check'?"],
    "--verzion": ["--verzion", "Did you mean '--version'?"],
    "init": ["PHOTOS"],
    "init p --delimiter ;;": ["--delimiter"],
    "init p --caption-format x": ["--caption-format", "Did you mean '--captions-format'?"],
    "caption": ["RUN, PATH"],
    "caption r p --format jsn": ["--format", "text, jsonl, csv or coco", "'jsn'", "Did you mean 'jsonl'?"],
    "caption r p --beam-size five": ["--beam-size", "a whole number, 1 to 1000", "'five'"],
    "caption r p --beam-sise 3": ["--beam-sise", "Did you mean '--beam-size'?"],
    "caption r p --beam-size": ["--beam-size", "expected one argument"],
    "caption r p --beam-size 20000": ["--beam-size", "1 to 1000", "20000"],
    "caption r p --frequency-penalty inf": ["--frequency-penalty", "0 to 100", "'inf'"],
    "caption r p --length-penalty 1000": ["--length-penalty", "-10 to 10", "1000"],
    "caption r p --length-penalty -1000": ["--length-penalty", "-10 to 10", "-1000"],
    "caption r p --method sample --temperature inf": ["--temperature", "0.01 to 100", "'inf'"],
    "caption r p --method sample --temperature 1e-40": ["--temperature", "0.01 to 100", "1e-40"],
    "caption r p --output x.xlsx": ["--output", ".txt, .jsonl, .csv or .json", "'x.xlsx'"],
    "caption r p --method bem": ["--method", "greedy, beam or sample", "Did you mean 'beam'?"],
    "caption r p --batch-size 0": ["--batch-size", "1 to 4096", "'0'"],
    "caption r p --batch-size -1": ["--batch-size", "1 to 4096", "'-1'"],
    "caption r p --device gpu": ["--device", "cpu, cuda, cuda:N, mps or auto", "'gpu'", "Did you mean 'cuda'?"],
    "caption r p --beam-size 5 --n-best 9": ["--n-best", "1 to beam_size (5)", "9"],
    "evaluate r --split tets": ["--split", "valid, train or test", "'tets'", "Did you mean 'test'"],
    "evaluate r --temperature -inf": ["--temperature", "0.01 to 100", "'-inf'"],
    "data check x --workers many": ["--workers", "0 to 256", "'many'"],
    "data fetch coco2107 d": ["coco2017", "'coco2107'", "Did you mean 'coco2017'?"],
    "data check x --min-freq 0": ["--min-freq", "'0'"],
    "demo --seed -1": ["--seed", "0 to 2147483647", "'-1'"],
    "train x --max_time soon": ["--max_time", "90m", "'soon'"],
    "train x --resum": ["Did you mean '--resume'?"],
    "compare a b --out c": ["'--out'", "Did you mean '--output'?"],
}


@pytest.mark.parametrize("typed", TYPED)
def test_a_wrong_word_is_one_sentence_with_the_nearest_right_one(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*typed.split(), capsys=capsys)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    for part in TYPED[typed]:
        assert part in err


def verbs() -> list[list[str]]:
    names = list(cli.VERBS)
    actions = {"runs": ["show", "verify"], "config": ["schema", "show"], "data": ["check", "fetch", "convert"]}
    return [[name] for name in names] + [[name, action] for name in names for action in actions.get(name, [])]


def help_of(verb: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.run([*verb, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def examples_of(verb: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = help_of(verb, capsys).partition("examples:\n")[2].splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"  img2seq {' '.join(verb)}") for line in lines)
    return lines


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_help_shows_every_default(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = re.split(r"\n  (?=-)", help_of(verb, capsys).partition("examples:")[0].partition("options:")[2])
    for option in options[2:]:  # after --help
        takes_a_value = re.match(r"--[\w-]+ [A-Z{]", option)
        assert not takes_a_value or "default: " in " ".join(option.split()), option


def test_the_examples_of_help_work(
    tmp_path: Path,
    finished_runs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tiny_data(tmp_path)
    write_yaml(tmp_path / "experiment.yaml", tiny_config(tmp_path))
    shutil.copytree(tmp_path / "images", tmp_path / "photos")
    shutil.copy(tmp_path / "images/000.png", tmp_path / "photo.jpg")
    (tmp_path / "results.json").write_text('[{"image_id": "000", "caption": "a red ball ."}]')
    (tmp_path / "references.csv").write_text("ID,Sequence\n000,a red ball .\n")
    for run_folder in finished_runs:
        shutil.copytree(run_folder, tmp_path / "runs/demo" / run_folder.name)
    monkeypatch.chdir(tmp_path)
    worked = 0
    for verb in verbs():
        for example in examples_of(verb, capsys):
            arguments = example.partition(" > ")[0].split()[1:]
            if arguments[:1] == ["demo"]:  # minutes; that the others parse does not say that it does
                assert cli.parse(arguments)[0].output.startswith("runs/demo")
                continue
            if arguments[:1] == ["serve"]:  # until it is stopped
                assert cli.parse(arguments)[0].runs
                continue
            if "captions.csv" in arguments and arguments[0] == "caption":
                arguments[arguments.index("captions.csv")] = "captioned.csv"  # here it holds the data set
            code = cli.run(arguments)
            assert code == 0 or arguments[:2] == ["data", "check"], (example, capsys.readouterr().err)
            worked += 1
    assert worked > 15


@pytest.mark.parametrize(
    "flags",
    ["--beam-size 1000", "--beam-size 1000 --beam-groups 1000 --diversity 100", "--length-penalty -10", "--length-penalty 10",
     "--repetition-penalty 100", "--repetition-penalty 0.01", "--frequency-penalty 100", "--no-repeat-ngram 1", "--max-length 1",
     "--method sample --temperature 0.01", "--method sample --temperature 100", "--method sample --top-p 0.00011",
     "--method sample --tau 0.00011", "--method sample --top-k 1000000", "--method sample --n-best 4096"],
)  # fmt: skip
def test_every_accepted_extreme_gives_a_caption(
    flags: str, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image = finished_runs[1].parent / "images/000.png"
    code, out, err = run(
        "caption", finished_runs[1], image, "--device", "cpu", "--min-length", "1", *flags.split(), capsys=capsys
    )
    assert (code, err) == (0, "")
    assert out.strip()


def test_closed_standard_streams_end_no_verb(tmp_path: Path) -> None:
    config = data_folder(tmp_path)
    command = f"exec '{sys.executable}' -m img2seq"
    for closing in ("2>&-", "<&- >&- 2>&-"):
        code = subprocess.run(
            ["sh", "-c", f"{command} train '{config}' --overwrite {closing}"], check=False, timeout=300
        )
        assert code.returncode == 0
        assert (tmp_path / "run/validation/summary.json").exists()
        shutil.rmtree(tmp_path / "run")


def test_captions_reach_a_narrow_encoding(
    tmp_path: Path, finished_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo_‰中.png"
    shutil.copy(finished_runs[1].parent / "images/000.png", path)
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    done = children.command("caption", finished_runs[1], path, path)
    assert done.returncode == 0, done.stderr
    assert b"photo_\x89\\u4e2d.png\t" in done.stdout


def data_folder(tmp_path: Path) -> Path:
    write_tiny_data(tmp_path)
    return write_yaml(tmp_path / "experiment.yaml", tiny_config(tmp_path))


def change(name: str, text: str) -> object:
    return lambda folder: (folder / name).write_bytes(text.encode("latin-1"))


# What is done to a good data folder or asked of it, and what the one error must say.
BROKEN: dict[str, tuple[object, list[str], list[str]]] = {
    "no config": (lambda f: (f / "experiment.yaml").unlink(), [], ["experiment.yaml", "cannot be read"]),
    "config is a list": (change("experiment.yaml", "- a\n- b\n"), [], ["expected keys and values"]),
    "config is empty": (change("experiment.yaml", ""), [], ["an empty file"]),
    "config is not text": (change("experiment.yaml", "\xff\xfe\x00"), [], ["expected UTF-8"]),
    "no images": (lambda f: shutil.rmtree(f / "images"), [], ["images", "expected a folder"]),
    "empty image folder": (lambda f: [p.unlink() for p in (f / "images").iterdir()], [], ["expected images", "found none"]),
    "no table": (lambda f: (f / "captions.csv").unlink(), [], ["captions.csv", "cannot be read"]),
    "empty table": (change("captions.csv", ""), [], ["captions.csv:1", "ID and Sequence"]),
    "other column": (change("captions.csv", "ID,Title\n000,x\n"), [], ["'Title'", "Sequence"]),
    "other ids": (change("captions.csv", "ID,Sequence\n" + "".join(f"x{i},a\n" for i in range(9))), [], ["none of the 9 captioned IDs", "000.png"]),
    "table in another encoding": (change("captions.csv", "ID,Sequence\n000,\x81\x82caf\xe9\n"), [], ["captions.csv:2", "UTF-8"]),
    "empty captions": (change("captions.csv", "ID,Sequence\n000,\n001,a b\n"), [], ["line 2", "caption is empty"]),
    "truncated image": (lambda f: (f / "images/001.png").write_bytes((f / "images/001.png").read_bytes()[:50]), [], ["001.png", "cannot be decoded"]),
    "text as image": (change("images/002.png", "hello"), [], ["002.png", "not an image"]),
    "missing image": (lambda f: (f / "images/003.png").unlink(), [], ["1 ID(s) with captions have no image", "003"]),
    "two files, one id": (lambda f: shutil.copy(f / "images/004.png", f / "images/004.jpg"), [], ["claimed by two files", "004"]),
    "no image left to train on": (None, ["--globals.basic_experiment.valid_size=24"], ["both sides", "24 of 24"]),
    "unknown validation ids": (change("ids.txt", "000\nnope\n"), ["--globals.basic_experiment.manual_valid_ids_file={f}/ids.txt"], ["1 of 2 IDs", "nope"]),
    "no words left": (None, ["--outputs.captions.output_type_info.min_freq=999"], ["empty vocabulary"]),
    "unknown encoder": (None, ["--inputs.photo.model_config.model_type=resnet188"], ["resnet188", "Did you mean"]),
    "no such weights": (None, ["--inputs.photo.model_config.pretrained_weights=w.pth"], ["w.pth", "found nothing"]),
    "image too small for the encoder": (None, ["--inputs.photo.input_type_info.size=[20]", "--inputs.photo.model_config.model_type=vit_tiny_patch16_224", "--inputs.photo.model_config.model_init_config.patch_size=64"], ["cannot take images of 20 x 20"]),
    "an override that is none": (None, ["--epochs=3"], ["unknown argument", "--epochs=3"]),
    "an override of nothing": (None, ["--globals.basic_experiment.n_epoch=3"], ["n_epoch", "Did you mean 'n_epochs'"]),
    "more pixels than allowed": (None, ["--inputs.photo.input_type_info.max_pixels=100"], ["24 image(s)", "1 to 100 pixels (max_pixels)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_configurations_and_broken_data_end_in_one_clear_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = data_folder(tmp_path)
    breaking, arguments, expected = BROKEN[name]
    if callable(breaking):
        breaking(tmp_path)
    code, _, err = run(
        "train", config, *(argument.replace("{f}", str(tmp_path)) for argument in arguments), capsys=capsys
    )
    assert code == 2
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    for part in expected:
        assert part in err
    assert not (tmp_path / "run").exists()  # nothing half-made is left behind


def test_an_error_reaches_the_shell_as_exit_code_two(tmp_path: Path) -> None:
    done = img2seq("train", tmp_path / "absent.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_config_show_prints_a_configuration_with_its_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = data_folder(tmp_path)
    code, out, _ = run("config", "show", config, "--globals.optimization.lr=0.5", capsys=capsys)
    assert code == 0
    assert "globals.optimization.lr: 0.5" in out
    assert out.count("# command line") == 1


def test_comparing_what_is_no_finished_run_is_one_error(
    tmp_path: Path, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([tmp_path], [finished_runs[0], finished_runs[0]], [finished_runs[0].parent / "imagge"]):
        code, _, err = run("compare", *arguments, capsys=capsys)
        assert code == 2
        assert "Traceback" not in err


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/*.yaml")), ids=str)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    if path.name == "experiment.yaml":
        load_config(path)
