"""A run folder begun by an earlier version (commit 10a62cf) loads, verifies, captions and resumes to the same bits.

The run was interrupted after step 7 of 18, on one thread. `expected.json` and `final_weights.safetensors` are what that version
made of it. Bits are compared on the kind of processor it ran on, and closely on any other: kernels choose their order of
additions by processor.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT
from img2seq import Captioner
from img2seq.config.load import ConfigFiles, load
from img2seq.model.weights import read_tensors
from img2seq.report.run_state import verify_run
from img2seq.training.loop import train

FIXTURE = ROOT / "tests/fixtures/run_before_rooms"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


def same_machine() -> bool:
    """Tell whether this machine adds in the order of the one that made the run."""
    made_on, info = EXPECTED["machine"], Path("/proc/cpuinfo")
    processor = f": {made_on['processor']}\n" in info.read_text(encoding="utf-8") if info.exists() else False
    return (
        processor
        and torch.backends.cpu.get_cpu_capability() == made_on["capability"]
        and torch.__version__ == made_on["torch"]
    )


@pytest.fixture
def old_run(tmp_path: Path, speed_ups_on: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the run, with the working folder where its configuration expects it."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_it_verifies(old_run: Path) -> None:
    text, is_whole = verify_run(old_run)
    assert is_whole, text


@pytest.mark.parametrize("method", ["beam", "sample"])
def test_it_captions_as_before(old_run: Path, method: str) -> None:
    pictures = sorted(map(str, Path("images").glob("*.png")))[:4]
    found = Captioner.load(old_run).caption(pictures, method=method, min_length=4, max_length=8, seed=5)
    for caption, expected in zip(found, EXPECTED["captions"][method], strict=True):
        assert (caption.text, list(caption.tokens)) == (expected["text"], expected["tokens"])
        assert caption.log_probability == pytest.approx(expected["log_probability"], abs=1e-4)


def test_it_resumes_to_the_same_bits(old_run: Path) -> None:
    train(load(ConfigFiles(experiment="experiment.yaml")), resume=True)
    checkpoint = old_run / "checkpoints/step-00000018"
    found, expected = (
        read_tensors(path) for path in (checkpoint / "weights.safetensors", FIXTURE / "final_weights.safetensors")
    )
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name].double(), rtol=1e-3, atol=1e-4), name
    if same_machine():
        for name, digest in EXPECTED["sha256"].items():
            assert hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == digest, name
