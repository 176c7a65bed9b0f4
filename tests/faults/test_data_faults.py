"""Folders and tables (rows 16, 21 and 23 of docs/faults.md): listed at once, under their root, never on both sides."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import img2seq, tiny_config, write_tiny_data, write_yaml
from img2seq import Captioner
from img2seq.cli import main as cli
from img2seq.config.load import ConfigFiles, load
from img2seq.data.records import Problems, find_images
from img2seq.data.sources.read import CaptionsFound, match_images
from img2seq.data.split import random_split
from img2seq.errors import ConfigError, DataError, RunError
from img2seq.run.checkpoint import best
from img2seq.run.folder import RunFolder, read_json
from img2seq.training.loop import train

SKIP = "globals.basic_experiment.on_bad_data=skip"


def trained(folder: Path, *overrides: str) -> RunFolder:
    once = ["globals.basic_experiment.n_epochs=1", "globals.basic_experiment.batch_size=64", *overrides]
    return train(load(ConfigFiles(experiment=str(folder / "experiment.yaml")), once))


# --- row 16: broken images


def test_broken_images_are_counted_listed_and_never_replaced(tiny: Path) -> None:
    (tiny / "images/003.png").write_bytes((tiny / "images/003.png").read_bytes()[:50])
    (tiny / "images/005.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 image") as caught:
        trained(tiny)
    assert all(name in str(caught.value) for name in ("003.png", "005.png"))
    run = trained(tiny, SKIP, "globals.basic_experiment.max_broken_share=0.1")
    used = {i for side in read_json(run.split).values() for i in side}
    assert used == {f"{i:03}" for i in range(24)} - {"003", "005"}
    assert all(name in run.data_report.read_text() for name in ("003.png", "005.png"))


def test_more_broken_images_than_chance_explains_stop_a_run_that_skips(tiny: Path) -> None:
    (tiny / "images/003.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 of 24 images cannot be used.*max_broken_share"):
        trained(tiny, SKIP)
    assert trained(tiny, SKIP, "globals.basic_experiment.max_broken_share=0.05").split.exists()


# --- row 21: missing images and paths


def test_all_missing_images_are_listed_before_training(tiny: Path) -> None:
    for name in ("001", "004", "007"):
        (tiny / f"images/{name}.png").unlink()
    with pytest.raises(DataError, match=r"3 ID\(s\) with captions have no image") as caught:
        trained(tiny)
    assert all(f"  {name}" in str(caught.value) for name in ("001", "004", "007"))
    assert not (tiny / "run").exists()


@pytest.mark.parametrize("image_id", ["../secret", "../secret.png", "{root}/secret.png", "images/../../secret"])
def test_an_id_is_a_name_and_never_a_path(tmp_path: Path, image_id: str) -> None:
    write_tiny_data(tmp_path / "data", n=2)
    shutil.copy(tmp_path / "data/images/000.png", tmp_path / "secret.png")
    shutil.copy(tmp_path / "data/images/000.png", tmp_path / "data/secret.png")
    problems = Problems()
    name = image_id.replace("{root}", str(tmp_path))
    files, _ = match_images(
        CaptionsFound({"000": ["x"], name: ["y"]}, []),
        {"000": ["x"], name: ["y"]},
        tmp_path / "data/images",
        "photo",
        problems,
    )
    assert set(files) == {"000"}
    assert "1 ID(s) with captions have no image" in problems.text()


def test_links_that_lead_out_of_the_folder_are_listed_and_not_followed(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data", n=2)
    images = tmp_path / "data/images"
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(images / "000.png", tmp_path / "elsewhere/secret.png")
    (images / "a.png").symlink_to(tmp_path / "elsewhere/secret.png")
    (images / "b.png").symlink_to(Path("../../elsewhere/secret.png"))
    (images / "folder").symlink_to(tmp_path / "elsewhere")
    (images / "inside.png").symlink_to(images / "001.png")
    found = find_images(images)
    assert set(found.pictures) == {"000", "001", "inside"}
    assert [line.split(" ")[0] for line in found.refused] == [str(images / "a.png"), str(images / "b.png")]
    problems = Problems()
    match_images(CaptionsFound({"000": ["x"]}, []), {"000": ["x"]}, images, "photo", problems)
    assert f"2 file(s) in {images} are not read" in problems.text()


def test_a_name_that_is_no_text_is_listed(tiny: Path) -> None:
    shutil.copy(tiny / "images/000.png", tiny / "images" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"caf\\xe9.png' has a name that is not UTF-8"):
        trained(tiny)
    assert trained(tiny, SKIP).split.exists()


def test_links_that_lead_to_no_file_and_folders_whose_name_is_no_text_are_listed(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tiny / "images"
    (images / "dangling.png").symlink_to(images / "absent.png")
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / os.fsdecode(b"caf\xe9")).mkdir()
    shutil.copy(images / "000.png", images / os.fsdecode(b"caf\xe9") / "inside.png")
    (images / "away.png").symlink_to(tiny / os.fsdecode(b"na\xefve.png"))
    shutil.copy(images / "000.png", tiny / os.fsdecode(b"na\xefve.png"))
    refused = ("dangling.png is a link that leads nowhere", "loop.png is a link that leads to no file", "caf\\xe9")
    with pytest.raises(DataError, match=r"4 file\(s\) in .* are not read") as caught:
        trained(tiny)
    assert all(line in str(caught.value) for line in refused)
    assert trained(tiny, SKIP).split.exists()
    assert cli.run(["data", "check", str(images), "--json", str(tiny / "found.json")]) == 2
    out = capsys.readouterr().out
    assert all(line in out for line in refused)
    (found,) = [f for f in read_json(tiny / "found.json")["findings"] if f["code"] == "refused-file"]
    assert found["count"] == 4


def test_a_damaged_cache_is_one_error_that_names_its_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2SEQ_CACHE", str(tiny / "cache"))
    trained(tiny)
    (index,) = (tiny / "cache").rglob("index.sqlite")
    whole = index.read_bytes()
    for damaged in (b"no data base" * 1000, whole[:100] + b"\xff" * (len(whole) - 100), whole[:4096] + b"\x07" * 9000):
        index.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{index.parent}: the cache cannot be used: .*remove this folder"):
            trained(tiny, f"globals.basic_experiment.output_folder={tiny}/other")
    shutil.rmtree(index.parent)
    assert trained(tiny, f"globals.basic_experiment.output_folder={tiny}/other").split.exists()


def test_manual_inputs_are_looked_at_before_training(tiny: Path) -> None:
    def with_manual(entry: dict[str, str]) -> None:
        config = tiny_config(tiny)
        config["outputs"][0]["sampling_config"]["manual_inputs"] = [entry]
        write_yaml(tiny / "experiment.yaml", config)

    with_manual({"captions": "a red"})
    with pytest.raises(ConfigError, match=r"manual_inputs: expected the keys .*photo"):
        trained(tiny)
    with_manual({"photo": str(tiny / "absent.png")})
    with pytest.raises(DataError, match=r"absent\.png: cannot be read"):
        trained(tiny)
    assert not (tiny / "run").exists()
    with_manual({"photo": str(tiny / "images/000.png")})
    assert (trained(tiny).samples("captions") / "1/manual/0_generated.txt").exists()


@pytest.mark.parametrize(
    "verb", ["data check", "data convert", "caption", "evaluate", "compare", "demo", "export", "init", "runs average"]
)
def test_a_path_that_cannot_be_written_is_one_error(
    verb: str, tiny: Path, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny / "results.json").write_text('{"1": "a red ball"}')
    (tiny / "references.json").write_text('{"1": ["a red ball", "a ball"]}')
    scored = ["--results", str(tiny / "results.json"), "--references", str(tiny / "references.json")]
    arguments = {
        "data check": [str(tiny / "images")],
        "data convert": [str(tiny / "captions.csv"), "--to", "csv"],
        "caption": [str(finished_runs[1]), str(tiny / "images")],
        "evaluate": scored,
        "compare": [str(run) for run in finished_runs],
        "export": [str(finished_runs[1])],
        "runs average": [str(finished_runs[1])],
        "init": [str(tiny / "images"), str(tiny / "captions.csv")],
    }
    option = {"data check": ["--json"], "data convert": [], "export": [], "runs average": []}.get(verb, ["--output"])
    assert cli.run([*verb.split(), *arguments.get(verb, []), *option, "/dev/null/x"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: /dev/null")


def test_a_folder_that_is_itself_a_link_is_its_own_root(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data", n=2)
    (tmp_path / "linked").symlink_to(tmp_path / "data/images")
    assert set(find_images(tmp_path / "linked").pictures) == {"000", "001"}


# --- row 23: the same picture in training and in validation


def twin(folder: Path, image_id: str, other: str) -> None:
    """Put the picture of one ID under another ID, too, with captions."""
    shutil.copy(folder / f"images/{image_id}.png", folder / f"images/{other}.png")
    with (folder / "captions.csv").open("a") as file:
        file.write(f"{other},the same again .\n")


def test_a_manual_split_that_leaks_is_refused_with_the_pairs(tiny: Path) -> None:
    twin(tiny, "000", "copy_a")
    twin(tiny, "001", "copy_b")
    (tiny / "valid.txt").write_text("000\n002\ncopy_b\n")
    manual = f"globals.basic_experiment.manual_valid_ids_file={tiny}/valid.txt"
    with pytest.raises(DataError, match=r"2 image\(s\) of manual_valid_ids_file stand in training") as caught:
        trained(tiny, manual)
    assert "000 is the same picture as copy_a" in str(caught.value)
    assert "copy_b is the same picture as 001" in str(caught.value)
    assert not (tiny / "run").exists()
    run = trained(tiny, manual, SKIP)
    split = read_json(run.split)
    assert split["valid"] == ["002"]
    assert {"copy_a", "001"} <= set(split["train"])
    assert "000 is the same picture as copy_a" in run.data_report.read_text()


def test_copies_on_one_side_are_no_leak(tiny: Path) -> None:
    twin(tiny, "000", "copy")
    (tiny / "valid.txt").write_text("000\ncopy\n")
    run = trained(tiny, f"globals.basic_experiment.manual_valid_ids_file={tiny}/valid.txt")
    assert read_json(run.split)["valid"] == ["000", "copy"]


def test_a_manual_split_of_copies_alone_leaves_nothing_to_validate(tiny: Path) -> None:
    twin(tiny, "000", "copy")
    (tiny / "valid.txt").write_text("copy\n")
    with pytest.raises(DataError, match="every one of its images stands in training"):
        trained(tiny, f"globals.basic_experiment.manual_valid_ids_file={tiny}/valid.txt", SKIP)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_split_keeps_copies_on_one_side(tiny: Path, seed: int) -> None:
    for n in range(8):
        twin(tiny, f"{n:03}", f"copy_{n}")
    run = trained(tiny, f"globals.basic_experiment.seed={seed}")
    split = read_json(run.split)
    side = {i: name for name, ids in split.items() for i in ids}
    assert [side[f"{n:03}"] for n in range(8)] == [side[f"copy_{n}"] for n in range(8)]
    assert len(split["valid"]) == 6


@given(
    st.dictionaries(st.text("abc0123", min_size=1, max_size=6), st.sampled_from("uvwxyz"), min_size=4, max_size=40),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_no_content_is_on_both_sides_of_a_random_split(contents: dict[str, str], count: int, seed: int) -> None:
    try:
        train, valid = random_split(contents, count, seed, contents)
    except DataError:
        groups = [list(contents.values()).count(content) for content in set(contents.values())]
        assert min(groups) > count or len(contents) <= count
        return
    assert sorted(train + valid) == sorted(contents)
    assert 1 <= len(valid) <= count
    assert not {contents[i] for i in train} & {contents[i] for i in valid}


@given(st.sets(st.text("abc0123", min_size=1), min_size=4, max_size=40), st.integers(0, 9))
def test_images_that_differ_are_split_as_if_contents_were_not_known(ids: set[str], seed: int) -> None:
    assert random_split(ids, 3, seed, {i: f"content of {i}" for i in ids}) == random_split(ids, 3, seed)


def test_a_random_split_stays_what_it_was() -> None:
    drawn_by_the_first_version = ["003", "014", "015", "019", "020", "023"]  # which a resumed run needs again
    assert random_split([f"{i:03}" for i in range(24)], 6, 0)[1] == drawn_by_the_first_version


# --- pipes and devices: a reader would wait for ever, or read for ever

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@contextmanager
def in_time() -> Iterator[None]:
    """Fail what waits for a pipe that nobody writes into."""

    def give_up(*_: object) -> None:
        raise AssertionError("it waits for ever")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@needs_pipes
@pytest.mark.parametrize(
    "name", ["captions.csv", "images/000.txt", "images/metadata.csv", "images/0.tar", "images/000.png"]
)
def test_a_pipe_among_captions_and_pictures_is_named_and_not_waited_for(
    tiny: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "images/000.txt":
        (tiny / "images/001.txt").write_text("a box\n")
    make_pipe(tiny / name)
    captions = [tiny / "captions.csv"] if name in ("captions.csv", "images/000.png") else []
    with in_time():
        assert img2seq("data", "check", *captions, tiny / "images") != 0
    assert any(Path(name).name in line and "a pipe" in line for line in "".join(capsys.readouterr()).splitlines())


@needs_pipes
def test_a_pipe_among_pictures_to_caption_is_one_that_fails(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(images / "000.png", tmp_path / "a.png")
    make_pipe(tmp_path / "b.png")
    with in_time():
        assert img2seq("caption", run, tmp_path) == 1
    found = capsys.readouterr()
    assert "a.png" in found.out
    assert "b.png" in found.err
    assert "a pipe" in found.err


@needs_pipes
def test_a_pipe_in_a_run_or_an_export_is_one_error(own_run: Path, exported: Path, tmp_path: Path) -> None:
    export = shutil.copytree(exported, tmp_path / "export")
    files = [own_run / name for name in ("facts.json", "tokenizer.json", "digests.json", "decoding.json")]
    files += [best(own_run / "checkpoints").path / "manifest.json"]
    files += [export / name for name in ("config.json", "export.json", "tokenizer.json", "onnx/encoder_model.onnx")]
    for path in files:
        data = path.read_bytes() if path.exists() else None
        make_pipe(path)
        with in_time(), pytest.raises(RunError, match=rf"{path.name}: .*a pipe"):
            Captioner.load(export if export in path.parents else own_run)
        path.unlink()
        if data is not None:
            path.write_bytes(data)
