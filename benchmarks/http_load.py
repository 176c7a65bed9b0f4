"""A server in a process of its own, and requests to it whose number and time are bounded.

Requests are made by one small client for every server, on a new connection each, from this machine to this machine. Latency counts from when a
request was due, not from when it could be sent: a server that stalls is not excused (coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

START_S, STOP_S = 180.0, 60.0
T = TypeVar("T")
MOST_REQUESTS = 20_000  # of one call; a loop that would send more is refused


@dataclass(frozen=True)
class Ask:
    """One request."""

    path: str
    body: bytes = b""
    content_type: str = ""

    def to_bytes(self) -> bytes:
        """Return what is sent."""
        head = f"{'POST' if self.body else 'GET'} {self.path} HTTP/1.1\r\nHost: benchmark\r\nConnection: close\r\n"
        if self.body:
            head += f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}\r\n".encode() + self.body


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 where none came: refused, reset, or too late.
        seconds: from when the request was due.
        body: as it came.
    """

    status: int
    seconds: float
    body: bytes = b""


@dataclass
class Server:
    """A running server.

    Attributes:
        ready_s: from its start to the first answer of 200.
    """

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float = 0.0

    async def ask(self, ask: Ask, *, timeout_s: float, due: float | None = None) -> Answer:
        """Send a request and return the answer; none at all is one of status 0."""
        began = time.monotonic() if due is None else due
        writer = None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(ask.to_bytes())
                await writer.drain()
                head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                return Answer(int(head.split(b" ", 2)[1]), time.monotonic() - began, body)
        except (OSError, TimeoutError, IndexError, ValueError):
            return Answer(0, time.monotonic() - began)
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def memory_mb(self, name: str = "VmRSS") -> float:
        """Return how much memory it holds, with all processes it started; VmHWM is the most it has held."""
        return sum(_status_kb(pid, name) for pid in _family(self.process.pid)) / 1000


def _status_kb(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _family(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


@contextlib.contextmanager
def serving(command: Sequence[object], ready_path: str, log: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Start a server on a free port, named {port} in its command, and end it with SIGTERM. Raises SystemExit where it does not start."""
    port = free_port()
    words = [str(word).replace("{port}", str(port)) for word in command]
    with log.open("wb") as file:
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=file, stderr=file, env=dict(environment), start_new_session=True)
    server = Server(process, port)
    try:
        while asyncio.run(server.ask(Ask(ready_path), timeout_s=5)).status != 200:
            if process.poll() is not None or time.monotonic() - began > START_S:
                raise SystemExit(f"{words[0]} does not serve; see {log}:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        server.ready_s = time.monotonic() - began
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_environment(pythonpath: str = "") -> dict[str, str]:
    """Return the environment for a server: as many threads as it chooses itself."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS") and k != "PYTHONPATH"}
    return environment | ({"PYTHONPATH": pythonpath} if pythonpath else {})


async def in_turn(server: Server, asks: Sequence[Ask], *, timeout_s: float) -> list[Answer]:
    """Send one request after the other."""
    return [await server.ask(ask, timeout_s=timeout_s) for ask in _bounded(asks)]


async def at_once(server: Server, asks: Sequence[Ask], *, timeout_s: float) -> list[Answer]:
    """Send all requests at the same time."""
    return await asyncio.gather(*(server.ask(ask, timeout_s=timeout_s) for ask in _bounded(asks)))


async def by_clients(server: Server, asks: Sequence[Ask], n: int, seconds: float, *, timeout_s: float) -> list[Answer]:
    """Have n clients each send the next request as soon as the last one is answered, for some seconds (a closed loop)."""
    answers: list[Answer] = []
    until = time.monotonic() + seconds

    async def client(first: int) -> None:
        place = first
        while time.monotonic() < until and len(answers) < MOST_REQUESTS:
            answers.append(await server.ask(asks[place % len(asks)], timeout_s=timeout_s))
            place += n

    await asyncio.gather(*map(client, range(n)))
    return answers


@dataclass
class Step:
    """What came of an offered rate.

    Attributes:
        rate: requests offered a second.
        seconds: for how long.
        answers: in the order in which requests were due.
        wall_s: until the last answer.
        most_mb: the most memory seen.
    """

    rate: float
    seconds: float
    answers: list[Answer] = field(default_factory=list)
    wall_s: float = 0.0
    most_mb: float = 0.0

    def share(self, status: int) -> float:
        """Return the share of answers of a status."""
        return sum(answer.status == status for answer in self.answers) / max(1, len(self.answers))


async def offer(
    server: Server, asks: Sequence[Ask], rate: float, seconds: float, *, timeout_s: float, seed: int
) -> Step:
    """Send requests at a rate, whatever comes back (an open loop): gaps are random as of many clients who know nothing of each other."""
    draw = random.Random(seed)
    step, due, times = Step(rate, seconds), 0.0, []
    while (due := due + draw.expovariate(rate)) < seconds:
        times.append(due)
    began = time.monotonic()
    tasks = []
    for place, due in enumerate(_bounded(times)):
        if (wait := began + due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if place % 50 == 0:
            step.most_mb = max(step.most_mb, server.memory_mb())
        ask = asks[place % len(asks)]
        tasks.append(asyncio.create_task(server.ask(ask, timeout_s=timeout_s, due=began + due)))
    step.answers = await asyncio.gather(*tasks)
    step.wall_s = time.monotonic() - began
    return step


PINGER = """
import http.client, json, sys, threading, time
host, port, path, seconds, every = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
found, began, n = [], time.monotonic(), int(float(sys.argv[4]) / float(sys.argv[5]))
def ask(due):
    connection = http.client.HTTPConnection(host, port, timeout=max(seconds, 5))
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except OSError:
        pass
    found.append(time.monotonic() - due)
    connection.close()
threads = []
for place in range(n):
    due = began + place * every
    time.sleep(max(0, due - time.monotonic()))
    threads.append(threading.Thread(target=ask, args=(due,)))
    threads[-1].start()
for thread in threads:
    thread.join()
print(json.dumps(found))
"""


async def pings(server: Server, path: str, seconds: float, *, every_s: float = 0.05) -> list[float]:
    """Ask for a path every so often and return how long each answer took; one that has not come after `seconds` took as long.

    From a process of its own: the one that makes the load is busy itself, and would measure that.
    """
    arguments = ["127.0.0.1", str(server.port), path, str(seconds), str(every_s)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PINGER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    waits: list[float] = json.loads(output)
    return waits


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _bounded(items: Sequence[T]) -> Sequence[T]:
    if len(items) > MOST_REQUESTS:
        raise SystemExit(f"benchmarks: {len(items):,} requests at once; at most {MOST_REQUESTS:,} are sent")
    return items
