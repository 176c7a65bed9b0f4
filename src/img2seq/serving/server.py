"""Run the application: a socket, signals, and an end that loses nothing.

SIGTERM and Ctrl-C: `/ready` says draining at once and new work is refused; what was accepted is finished, for at most a
request's time; then the port is closed. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from img2seq.serving.worker import Worker

NOTICE_S = 1.0  # how long /ready says draining before the port is closed, so that a balancer sees it
LOOK_S = 0.05
MOST_HEADER_BYTES = 32_000


def listen(host: str, port: int) -> socket.socket:
    """Return a socket on an address; port 0 takes a free one. Raises OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen there: {error.strerror or error}", f"{host}:{port}") from None
    return listener


class Server(uvicorn.Server):
    """A uvicorn server that drains.

    Args:
        app: the application.
        worker: whose work is finished before the end.
        when_ready: called once the models are warm.
    """

    def __init__(self, app: ASGIApp, worker: Worker, *, when_ready: Callable[[], None] = lambda: None):
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                http="h11",  # which bounds headers
                lifespan="off",
                timeout_keep_alive=75,  # above what proxies keep idle connections for: they close them, not we
                ws="none",
                server_header=False,
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                timeout_graceful_shutdown=5,
            )
        )
        for name in ("uvicorn.error", "python_multipart"):  # what clients do wrong is a line of our log already
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.worker, self.when_ready = worker, when_ready
        self._n_signals = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals here, and do not raise them again at the end: an ordered end is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal end at once."""
        self._n_signals += 1
        if self._n_signals > 1:
            self.should_exit = self.force_exit = True
        else:
            asyncio.get_running_loop().call_soon_threadsafe(self._drain)

    async def main_loop(self) -> None:
        """Serve until it is over."""
        self._watch = asyncio.ensure_future(self._tell_when_ready())
        await super().main_loop()
        self._watch.cancel()

    def over(self) -> None:
        """End: the models have failed. May be called from any thread."""
        self.should_exit = True

    def _drain(self) -> None:
        self.worker.drain()
        self._draining = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < self.worker.limits.timeout_s:
            if loop.time() - began >= NOTICE_S and self.worker.is_idle:
                break
            await asyncio.sleep(LOOK_S)
        self.should_exit = True

    async def _tell_when_ready(self) -> None:
        while self.worker.state == "loading":
            await asyncio.sleep(LOOK_S)
        if self.worker.state == "ready":
            self.when_ready()
