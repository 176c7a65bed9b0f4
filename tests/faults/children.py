"""Real processes for the fault tests, forked from a server that has imported the package once: each starts at once.

A child is a process of its own with a process group of its own. It can be killed, and nothing of it reaches the tests but
its exit code, its standard error and what it left on disk.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "img2seq.cli.main",
        "img2seq.training.loop",
        "timm",
        "tensorboardX",
        "matplotlib.pyplot",
        "PIL.PngImagePlugin",
        "pytest",
    ]
)
PATIENCE_S = 60.0


def _begin(log: Path | None, program: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.setsid()
    if log is not None:
        with log.open("w") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    import torch

    torch.set_num_threads(1)
    program(*arguments)


@contextmanager
def child(program: Callable[..., None], *arguments: object, log: Path | None = None) -> Iterator[ForkServerProcess]:
    """Run a function of a test module in a child, which is dead at the end, whatever happens."""
    process = CONTEXT.Process(target=_begin, args=(log, program, arguments))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def exit_code(process: ForkServerProcess) -> int:
    """Wait for the child's end; -N where signal N killed it."""
    process.join(PATIENCE_S)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def run(program: Callable[..., None], *arguments: object, log: Path | None = None) -> int:
    with child(program, *arguments, log=log) as process:
        return exit_code(process)


def img2seq(arguments: Sequence[object], plant: Callable[[], None] | None = None) -> None:
    """Be the command line; `plant` may first break something in this process."""
    from img2seq.cli import main as cli

    if plant is not None:
        plant()
    sys.exit(cli.run([str(argument) for argument in arguments]))


def wait_until(condition: Callable[[], bool], process: ForkServerProcess | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.is_alive(), "ended too soon"
        time.sleep(0.01)
