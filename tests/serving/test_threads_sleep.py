"""A server's threads sleep while they wait for each other: beside others, threads that spin made it several times slower."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT


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
