"""Packages of npm for tests, fetched once for all later tests of this user. Where they cannot be had, tests are skipped with the reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock


def program(name: str) -> str:
    """Return where a program is. Skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, which is not here")
    return found


def node_modules(*packages: str) -> Path:
    """Return the folder `node_modules` that holds these packages, each given with its version."""
    name = "+".join(packages).replace("/", "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "img2seq-tests" / name
    is_whole = cache / "whole"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        if not is_whole.exists():
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            command = [program("npm"), "install", "--prefix", str(cache), *options, *packages]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm has not fetched {name} in time")
            if done.returncode:
                pytest.skip(f"npm cannot fetch {name}: {done.stderr.strip()[:200]}")
            is_whole.touch()
    return cache / "node_modules"


def example(name: str, target: Path) -> Path:
    """Copy an example, with the packages it asks for, to where a test may change it."""
    source = Path(__file__).parents[1] / "examples" / name
    asked_for = json.loads((source / "package.json").read_text())["dependencies"]
    left_out = shutil.ignore_patterns("node_modules", "vendor", "model")
    shutil.copytree(source, target / name, ignore=left_out)
    (target / name / "node_modules").symlink_to(node_modules(*(f"{p}@{version}" for p, version in asked_for.items())))
    return target / name
