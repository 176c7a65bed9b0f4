"""Systems that are not here: no `fcntl`, no syncing of what is open for reading, no opening of folders, as on Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT, tiny_config, write_yaml

LIKE_WINDOWS = """
import fcntl, os, sys
access = lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
sys.modules["fcntl"] = None
real_open, real_sync = os.open, os.fsync

def opened(path, *arguments, **options):
    if sys._getframe(1).f_globals["__name__"].startswith("img2seq") and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *arguments, **options)

def synced(descriptor):
    if access(descriptor) == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    real_sync(descriptor)

os.open, os.fsync = opened, synced
"""

USE = """
import torch
torch.set_num_threads(1)
from img2seq.cli import main as cli
from img2seq.metrics import java
from img2seq.errors import RunError
from img2seq.run.folder import RunFolder
from img2seq.run.lock import locked

def meteor(*texts):  # its program would start, which opens nothing in another way here
    raise java.NotComputed("not in this test")

java.meteor = meteor
folder = sys.argv[1]
run = f"{folder}/run"
with locked(RunFolder(f"{folder}/held"), print):
    try:
        with locked(RunFolder(f"{folder}/held"), print):
            print("held twice")
    except RunError as error:
        print("refused", str(os.getpid()) in str(error))
for arguments in (
    ["train", f"{folder}/experiment.yaml"],
    ["caption", run, f"{folder}/images/000.png", "--output", f"{folder}/caption.jsonl"],
    ["evaluate", run, "--output", f"{folder}/scores"],
):
    print(arguments[0], cli.run(arguments))
"""


def test_it_trains_captions_and_evaluates_where_files_are_as_on_windows(tiny: Path) -> None:
    config = tiny_config(tiny)
    config["globals"]["basic_experiment"]["n_epochs"] = 1
    write_yaml(tiny / "experiment.yaml", config)
    environment = {
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "IMG2SEQ_CACHE": str(tiny / "cache"),
    }
    command = [sys.executable, "-c", LIKE_WINDOWS + USE, str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = done.stdout.splitlines()
    assert ("refused True" in lines, "held twice" in lines) == (True, False), done.stderr
    assert [line for line in lines if line.endswith(" 0")] == ["train 0", "caption 0", "evaluate 0"], done.stderr
    assert (tiny / "caption.jsonl").stat().st_size > 0
