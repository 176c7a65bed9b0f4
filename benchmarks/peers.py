"""A peer's environment: made once under benchmarks/.envs, from PyPI, and never mixed with ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).with_name(".envs")
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
    found = next((c for c in candidates if c and Path(c).is_file()), None)
    if found is None:
        sys.exit(
            f"{peer.packages[0]} needs Python {peer.python}, which is not on the path; install it, or name it in "
            f"BENCHMARK_{name.upper().replace('.', '_')}"
        )
    return found
