"""Exports on the hub, named hf:OWNER/NAME, against a stand-in of the hub on this machine (tests/hub.py); no test reaches the real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from conftest import ROOT
from hub import TOKEN, Hub, point_at
from img2seq import Captioner
from img2seq.cli import main as cli
from img2seq.errors import RunError
from img2seq.export.export_run import export_run
from img2seq.export.model_card import Said
from img2seq.progress import Announcer
from img2seq.run.folder import read_json
from img2seq.run.hub import local_folder
from img2seq.serving.models import names_of
from servers import serving
from test_without_torch import in_the_core

NAME = "anna/photos"


@pytest.fixture(scope="module")
def export(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "export"
    export_run(run, folder, announce=Announcer(level="critical", bars=False))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a hub with nothing on it, which huggingface_hub takes for the real one; its cache is empty."""
    for name in ("ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))  # put back at the end
    with Hub() as hub:
        point_at(hub.url, str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


def error_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a command says of a name, with exit code 2."""
    capsys.readouterr()
    assert cli.run(["runs", "show", name]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert name in line
    return line


# --- what is there is used ---------------------------------------------------------------------------------


def test_a_captioner_from_the_hub_captions_as_the_run(hub: Hub, run: Path, export: Path, images: Path) -> None:
    hub.add(NAME, export)
    pictures = sorted(map(str, images.glob("*.png")))[:6]
    found = Captioner.load(f"hf:{NAME}", device="cpu").caption(pictures, beam_size=3)
    assert found == Captioner.load(run, device="cpu").caption(pictures, beam_size=3)


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, export: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(export, tmp_path / "other"))
    made_from = read_json(other / "export.json")
    (other / "export.json").write_text(
        f'{{"format": 1, "img2seq": "0.1.0", "run": "of v1", "step": {made_from["step"]}}}'
    )
    hub.add(NAME, export)
    commit = hub.add(NAME, other, revision="refs/pr/1")
    assert read_json(local_folder(f"hf:{NAME}") / "export.json") == made_from
    for revision in ("refs/pr/1", commit):
        assert read_json(local_folder(f"hf:{NAME}@{revision}") / "export.json")["run"] == "of v1"


def test_only_what_an_export_holds_is_fetched(hub: Hub, export: Path, tmp_path: Path) -> None:
    full = Path(shutil.copytree(export, tmp_path / "full"))
    strangers = ("README.md", "figures/captions.jpg", "modeling.py", "pytorch_model.bin", "checkpoints/step-1/training.safetensors", "onnx/run.py")  # fmt: skip
    for name in strangers:
        (full / name).parent.mkdir(exist_ok=True)
        (full / name).write_text("something else")
    hub.add(NAME, full)
    folder = local_folder(f"hf:{NAME}")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()} - {"README.txt"}
    assert found == expected
    assert set(hub.sent) == expected


def test_what_is_in_the_cache_is_not_sent_again_and_works_offline(
    hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, export)
    folder = local_folder(f"hf:{NAME}")
    sent = hub.sent.copy()
    assert local_folder(f"hf:{NAME}") == folder
    assert hub.sent == sent
    hub.stop()
    assert local_folder(f"hf:{NAME}") == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_folder(f"hf:{NAME}") == folder
    assert Captioner.load(f"hf:{NAME}", device="cpu").decoding_defaults


def test_a_private_one_is_fetched_with_the_token(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, export, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (local_folder(f"hf:{NAME}") / "config.yaml").is_file()


def test_verbs_take_the_name(
    hub: Hub, run: Path, export: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(NAME, export)
    picture, name = str(min(images.glob("*.png"))), f"hf:{NAME}"
    assert cli.run(["caption", name, picture]) == 0
    (caption,) = capsys.readouterr().out.splitlines()
    assert caption == Captioner.load(run).caption(picture).text
    assert cli.run(["caption", name, picture, "--html", str(tmp_path / "page.html")]) == 0
    assert name in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert cli.run(["runs", "verify", name]) == 0
    words = ["evaluate", name, "--captions", str(run.parent / "captions.csv"), "--images", str(images)]
    assert cli.run(words) == 2
    assert "--output DIR" in capsys.readouterr().err
    assert cli.run([*words, "--output", str(tmp_path / "scores")]) == 0
    assert read_json(tmp_path / "scores/metrics.json")["images"] == 32
    assert not Path("hf:anna").exists()


def test_a_server_fetches_once_and_calls_the_model_by_its_name(hub: Hub, run: Path, export: Path, images: Path, tmp_path: Path) -> None:  # fmt: skip
    assert list(names_of([f"hf:{NAME}@refs/pr/1", "runs/other"])) == ["photos", "other"]
    hub.add(NAME, export)
    picture = min(images.glob("*.png"))
    with serving(tmp_path, f"hf:{NAME}", plant=partial(point_at, hub.url, str(tmp_path / "cache"))) as served:
        answer = served.post("/caption", content=picture.read_bytes(), headers={"Content-Type": "image/png"}).json()
    assert answer["model"] == "photos"
    assert answer["captions"][0]["text"] == Captioner.load(run).caption(picture).text
    assert len([line for line in hub.asked if "/revision/" in line]) == 1


def test_a_new_process_with_HF_ENDPOINT_fetches_and_captions(hub: Hub, export: Path, images: Path, tmp_path: Path) -> None:  # fmt: skip  # noqa: N802
    hub.add(NAME, export)
    given = {"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "img2seq", "caption", f"hf:{NAME}", str(min(images.glob("*.png")))]
    done = subprocess.run(command, capture_output=True, text=True, env=given | {"HF_ENDPOINT": hub.url})
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, ""), done.stderr


def test_an_export_for_ONNX_Runtime_captions_from_there_without_torch_and_by_its_cards_script(hub: Hub, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip  # noqa: N802
    said = Said("anna/onnx", "mit", ["en"], ["shapes"])
    export_run(
        run, tmp_path / "onnx", onnx=("fp32", "fp16"), card=said, announce=Announcer(level="critical", bars=False)
    )
    hub.add("anna/onnx", tmp_path / "onnx")
    picture = min(images.glob("*.png"))
    expected = Captioner.load(run, device="cpu").caption(picture, method="greedy").text
    for name, value in (("HF_ENDPOINT", hub.url), ("HF_HOME", str(tmp_path / "home")), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    (done,) = in_the_core(["caption", "hf:anna/onnx", picture, "--method", "greedy"])
    assert (done.code, done.out) == (0, f"{expected}\n"), done.err
    assert {path for path in hub.sent if path.endswith(".onnx")} == {"onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"}  # fmt: skip
    card = (tmp_path / "onnx/README.md").read_text(encoding="utf-8")
    (script,) = (code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "onnxruntime" in code)
    shutil.copy(picture, tmp_path / "photo.jpg")
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (process.returncode, process.stdout) == (0, f"{expected}\n"), process.stderr


# --- bad connections -----------------------------------------------------------------------------------------


def test_a_download_that_is_cut_goes_on_where_it_was(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add(NAME, export)
    (weights,) = (path.relative_to(export).as_posix() for path in export.rglob("weights.safetensors"))
    hub.cuts[weights] = 2
    folder = local_folder(f"hf:{NAME}")
    n_bytes = (export / weights).stat().st_size
    assert (folder / weights).read_bytes() == (export / weights).read_bytes()
    assert hub.sent[weights] < n_bytes + 2 * 1000  # at most a piece of it twice
    assert hub.ranges[weights] != "bytes=0-"


def test_after_a_download_that_failed_the_same_command_fetches_what_is_missing(
    hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.add(NAME, export)
    (weights,) = (path.relative_to(export).as_posix() for path in export.rglob("weights.safetensors"))
    hub.cuts[weights] = 1000
    assert "what has arrived stays" in error_of(f"hf:{NAME}", capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of(f"hf:{NAME}", capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cuts.clear()
    before = hub.sent.copy()
    assert cli.run(["runs", "verify", f"hf:{NAME}"]) == 0
    again = {path for path in hub.sent if hub.sent[path] > before[path]}
    assert weights in again
    assert "facts.json" not in again


# --- one clear error -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:photos", "hf:/photos", "hf:anna/", "hf:anna/photos/more", "hf:anna/../photos", "hf:../photos", "hf:anna/..", "hf:anna/a--b",
     "hf:anna/photos.git", "hf:anna/photos@", "hf:anna/photos@../../x", "hf:anna/photos@/etc", "hf:anna/pho tos", "hf:anna/photos?x=1",
     "hf:anna/photos#x", "hf:anna/ph\u00f6tos", "hf:anna/photos\n", "hf:anna\\photos", "hf:-anna/photos", f"hf:anna/{'a' * 100}",
     f"hf:anna/photos@{'a' * 300}", "hf:anna/photos@v1@v2", "hf:anna/%2e%2e"],
)  # fmt: skip
def test_an_odd_name_is_refused_before_any_request(name: str, hub: Hub, export: Path) -> None:
    hub.add(NAME, export)
    with pytest.raises(RunError, match=r"expected (hf:OWNER/NAME|a name without)") as error:
        local_folder(name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert hub.asked == []


def test_each_thing_that_goes_wrong_is_one_sentence(
    hub: Hub, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "another's"
    other.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (other / name).write_text("{}")
    hub.add(NAME, export)
    hub.add("anna/private", export, private=True)
    hub.add("anna/gated", export, gated=True)
    hub.add("bert/base", other)
    (tmp_path / "empty").mkdir()
    hub.add("anna/empty", tmp_path / "empty")
    assert "expected a folder that `img2seq export` wrote" in error_of("hf:bert/base", capsys)
    assert "model.safetensors" not in hub.sent
    assert "expected a folder that `img2seq export` wrote" in error_of("hf:anna/empty", capsys)
    assert "has no revision 'v9'" in error_of("hf:anna/photos@v9", capsys)
    assert "no revision" in error_of(f"hf:anna/photos@{'0' * 40}", capsys)
    for name in ("anna/private", "anna/nothing"):  # the hub does not tell them apart
        line = error_of(f"hf:{name}", capsys)
        assert "private" in line
        assert "HF_TOKEN" in line
    assert "gated" in (line := error_of("hf:anna/gated", capsys))
    assert "HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", "hf_of_yesterday")
    assert "HF_TOKEN" in error_of("hf:anna/private", capsys)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "there is no such repository" in error_of("hf:anna/nothing", capsys)
    hub.status = 403
    assert "HF_TOKEN" in error_of("hf:anna/photos", capsys)
    hub.status = 400
    assert "status 400" in error_of("hf:anna/photos", capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of("hf:anna/photos", capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.stop()
    line = error_of("hf:anna/never", capsys)
    assert "cannot be fetched from" in line
    assert hub.url in line


def test_what_was_changed_on_the_hub_is_found(hub: Hub, export: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(export, tmp_path / "damaged"))
    (damaged / "facts.json").write_text((damaged / "facts.json").read_text() + " ")
    hub.add(NAME, damaged)
    with pytest.raises(RunError, match=r"facts\.json: changed since it was written"):
        Captioner.load(f"hf:{NAME}")


def test_without_the_package_it_says_what_to_install(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunError, match=r"pip install 'img2seq\[hub\]'"):
        local_folder(f"hf:{NAME}")
    assert hub.asked == []


def test_a_folder_is_never_asked_of_the_hub(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(export.parent)
    assert local_folder("export") == Path("export")
    settings: dict[str, Any] = Captioner.load("export", device="cpu").decoding_defaults
    assert settings
    assert hub.asked == []
