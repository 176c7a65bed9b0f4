"""A peer's environment: made once under benchmarks/.envs, from PyPI, and never mixed with ours; and programs in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(__file__).with_name(".envs")
TIMED = Path(__file__).with_name("timed")
ROOT = Path(__file__).parents[1]
TORCH = ("torch==2.14.1", "torchvision==0.29.1")  # the same on all sides, so that only the frameworks differ


@dataclass(frozen=True)
class Peer:
    """A framework to compare with.

    Attributes:
        name: of its environment.
        python: version of the interpreter it needs.
        packages: what pip installs.
    """

    name: str
    python: str
    packages: tuple[str, ...]


EIR = Peer("eir", "3.13", ("eir-dl==0.25.0", *TORCH))
OUR_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HUGGING_FACE = Peer("hugging_face", OUR_PYTHON, ("transformers==5.24.0", "pillow>=11,<14", *TORCH))


def interpreter(peer: Peer) -> Path:
    """Return the peer's Python, after making its environment where it is not there yet.

    Raises:
        SystemExit: with what is missing, if no interpreter of its version is found or pip fails.
    """
    folder = ENVIRONMENTS / peer.name
    python, marker = folder / "bin" / "python", folder / "complete"
    wanted = "\n".join(peer.packages)
    if marker.is_file() and marker.read_text() == wanted:
        return python
    base = _base(peer)
    print(f"installing {peer.packages[0]} into {folder} (once, some minutes and up to 7 GB)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    for command in ([base, "-m", "venv", folder], [python, "-m", "pip", "install", "--quiet", *peer.packages]):
        done = subprocess.run(
            [*map(str, command)], env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed; the benchmark needs this peer")
    marker.write_text(wanted)
    return python


def _base(peer: Peer) -> str:
    if sys.version.startswith(peer.python + "."):
        return sys.executable
    name = f"python{peer.python}"
    candidates = [os.environ.get("BENCHMARK_" + name.upper().replace(".", "_")), shutil.which(name)]
    candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{peer.python}.*/bin/python")))
    found = next((c for c in candidates if c and _runs(c, peer.python)), None)
    if found is None:
        sys.exit(
            f"{peer.packages[0]} needs Python {peer.python}, which is not on the path; install it, or name it in "
            f"BENCHMARK_{name.upper().replace('.', '_')}"
        )
    return found


class Session:
    """A program of benchmarks/timed/ in a process of its own, which answers each line of JSON with one.

    Two sides are measured in turn by asking one after the other; while one computes, the other waits for its next line.

    Args:
        program: its name, without .py.
        python: the interpreter: a peer's, or ours.
        threads: its settings of threads, in place of as many threads as torch has here.
    """

    def __init__(self, program: str, python: Path | str, threads: Mapping[str, str] | None = None):
        if threads is None:
            import torch

            threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        environment = os.environ | threads | {"TRANSFORMERS_VERBOSITY": "error"}
        environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'src'}" if str(python) == sys.executable else ""
        self.program = program
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", str(TIMED / f"{program}.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the program's answer. Raises SystemExit if it has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"benchmarks/timed/{self.program}.py ended without an answer to {request}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Let the program end."""
        self.process.communicate()


def _runs(candidate: str, version: str) -> bool:
    """Return whether a command is a Python of this version: what is on the path may be a shim that finds none."""
    if not Path(candidate).is_file():
        return False
    found = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and found.stdout.startswith(f"Python {version}.")
