"""A server's threads sleep while they wait for each other: beside others, threads that spin made it several times slower."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from img2seq.model.cpu.cores import leave_a_core


@pytest.mark.skipif(sys.platform != "linux", reason="asks the library of threads that torch has on Linux")
@pytest.mark.parametrize(("given", "spins"), [({}, 0), ({"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000)])
def test_torch_is_loaded_with_threads_that_sleep(given: dict[str, str], spins: int, run: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment = (
        clean | {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": str(ROOT / "src")} | given
    )  # it says how it was set
    command = [sys.executable, "-m", "img2seq", "serve", str(run), "--port", "0", "--device", "cpu"]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(command, env=environment, stderr=file) as server:
        deadline = time.monotonic() + 120
        while "ready after" not in log.read_text() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        server.terminate()
    assert f"GOMP_SPINCOUNT = '{spins}'" in log.read_text()


@pytest.mark.parametrize(("has", "leaves"), [(1, 1), (2, 1), (8, 7)])
def test_a_core_is_left_to_the_rest_of_the_server(has: int, leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(has)))
    found: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: has)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    leave_a_core()
    leave_a_core()  # of a second model: no further core
    monkeypatch.setenv("OMP_NUM_THREADS", str(has))  # a user's own number
    leave_a_core()
    assert found == [leaves, leaves, has]
