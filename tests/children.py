"""Real processes for tests, forked from a server that has imported the package once: each starts at once.

A child is a process of its own with a process group, streams, an environment and a working folder of its own. It can be killed
or signalled, and nothing of it reaches the tests but its exit code, its output and what it left on disk. A new interpreter
would import torch and timm again, for many seconds: it is for tests of just that, of what Python does before it runs the command.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "img2seq.cli.main",
        "img2seq.training.loop",
        "img2seq.inference.caption_files",
        "img2seq.report.comparison_page",
        "timm",
        "tensorboardX",
        "matplotlib.pyplot",
        "matplotlib.backends.backend_pdf",
        "PIL.PngImagePlugin",
        "PIL.JpegImagePlugin",
        "torch._refs",
        "torch.distributed.run",
        "torch.distributed.fsdp",
        "torch.distributed.elastic.agent.server.local_elastic_agent",
        "pytest",
    ]
)
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Surroundings:
    """What a child finds when it begins.

    Attributes:
        stdin: a pipe it reads; None for nothing to read.
        stdout: a file for its output; None for that of the tests.
        stderr: likewise.
        closed: descriptors that are closed, as a shell's `>&-` does.
        folder: it works in.
    """

    stdin: Connection | None = None
    stdout: Path | None = None
    stderr: Path | None = None
    closed: tuple[int, ...] = ()
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def enter(self) -> None:
        """Make this process's surroundings such."""
        os.environ.clear()
        os.environ |= self.environment
        if self.folder is not None:
            os.chdir(self.folder)
        if self.stdin is not None:
            os.dup2(self.stdin.fileno(), 0)
            self.stdin.close()
            sys.stdin = _text(0, "r", sys.__stdin__)
        for number, path in ((1, self.stdout), (2, self.stderr)):
            if path is not None:
                with path.open("wb") as file:
                    os.dup2(file.fileno(), number)
        if self.stdout is not None:
            sys.stdout = _text(1, "w", sys.__stdout__)
        for number in self.closed:  # as Python has it where it begins so
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def _text(number: int, mode: str, like: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Return the stream that Python makes of a descriptor when it begins: PYTHONIOENCODING decides, else the locale."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    default = (like.encoding, like.errors) if like is not None else ("utf-8", "strict")
    if encoding:
        errors = errors or "strict"
    stream = open(number, f"{mode}b", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(stream, encoding or default[0], errors or default[1])


def _begin(around: Surroundings, program: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.setsid()
    around.enter()
    import torch

    torch.set_num_threads(1)
    program(*arguments)


@contextmanager
def child(
    program: Callable[..., None], *arguments: object, log: Path | None = None, around: Surroundings | None = None
) -> Iterator[ForkServerProcess]:
    """Run a function of a test module in a child, which is dead at the end, whatever happens. `log` gets its standard error."""
    process = CONTEXT.Process(target=_begin, args=(around or Surroundings(stderr=log), program, arguments))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def exit_code(process: ForkServerProcess, patience_s: float = PATIENCE_S) -> int:
    """Wait for the child's end; -N where signal N killed it."""
    process.join(patience_s)
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
    sys.argv = ["img2seq", *map(str, arguments)]
    cli.main()


def finished(
    program: Callable[..., None],
    *arguments: object,
    data: bytes | None = None,
    closed: tuple[int, ...] = (),
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a function in a child to its end and return what it wrote and its exit code. `data` is what it reads from a pipe."""
    with tempfile.TemporaryDirectory() as temporary:
        out, err = Path(temporary, "out"), Path(temporary, "err")
        reader, writer = CONTEXT.Pipe(duplex=False)
        with reader, writer:
            around = Surroundings(None if data is None else reader, out, err, closed, folder)
            with child(program, *arguments, around=around) as process:
                if data is not None:
                    assert os.write(writer.fileno(), data) == len(data)  # a pipe holds as much at once
                writer.close()
                code = exit_code(process)
        return subprocess.CompletedProcess(list(map(str, arguments)), code, out.read_bytes(), err.read_bytes())


def command(
    *arguments: object, data: bytes | None = None, closed: tuple[int, ...] = (), folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a child to its end; see `finished`."""
    return finished(img2seq, arguments, data=data, closed=closed, folder=folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def join(rank: int, port: int) -> None:
    """Be one of two processes of a run, as a cluster's own launcher would have it, without torchrun."""
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def wait_until(condition: Callable[[], bool], process: ForkServerProcess | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.is_alive(), "ended too soon"
        time.sleep(0.01)
