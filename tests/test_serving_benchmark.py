"""The client of `python -m benchmarks serving`: what it sends is bounded, and what it measures is what a client waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from benchmarks import http_load, serving
from benchmarks.http_load import Answer, Ask, Server, Step


class Stub(BaseHTTPRequestHandler):
    """Answers with the caption "a ball ."; one at a time where it is told to be slow, and 503 where it is told to be full."""

    slow_s, is_full, lock = 0.0, False, threading.Lock()

    def do_GET(self) -> None:
        self._answer(200, {"status": "alive"})

    def do_POST(self) -> None:
        assert self.rfile.read(int(self.headers["Content-Length"])) == b"picture"
        with self.lock:
            time.sleep(self.slow_s)
        self._answer(503 if self.is_full else 200, {"captions": [{"text": "a ball ."}]})

    def _answer(self, status: int, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have left
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    request_queue_size = 200


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    listener = Listener(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    monkeypatch.setattr(Server, "memory_mb", lambda self, name="VmRSS": 100.0)
    yield Server(None, listener.server_address[1])  # type: ignore[arg-type]
    listener.shutdown()
    thread.join()
    listener.server_close()


ASKS = [Ask("/caption", b"picture", "image/jpeg")]


def test_every_way_of_asking_counts_its_answers(server: Server) -> None:
    assert [a.status for a in asyncio.run(http_load.in_turn(server, ASKS * 3, timeout_s=20))] == [200] * 3
    answers = asyncio.run(http_load.at_once(server, ASKS * 20, timeout_s=20))
    assert serving.texts(answers) == ["a ball ."] * 20
    assert len(asyncio.run(http_load.pings(server, "/health", 0.5))) == 10
    closed = asyncio.run(http_load.by_clients(server, ASKS, 3, 0.3, timeout_s=20))
    assert {a.status for a in closed} == {200}


def test_an_open_loop_sends_the_same_requests_whatever_comes_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered() -> Step:
        return asyncio.run(http_load.offer(server, ASKS, 40, 0.5, timeout_s=20, seed=3))

    quick = offered()
    monkeypatch.setattr(Stub, "slow_s", 0.06)  # 17 a second: it falls behind
    slow = offered()
    assert len(slow.answers) == len(quick.answers) > 8
    assert slow.wall_s > len(slow.answers) * 0.06
    assert max(a.seconds for a in slow.answers) > 3 * 0.06  # waiting for its turn counts
    row = serving.row_of(slow, ASKS, ["a ball ."])
    assert (row["equal_captions"], row["captions"], row["refused"]) == (len(slow.answers), len(slow.answers), 0)
    monkeypatch.setattr(Stub, "is_full", True)
    row = serving.row_of(offered(), ASKS, ["a ball ."])
    assert (row["captions"], row["refused"], row["other"]) == (0, 1, 0)


def test_latency_counts_from_when_a_request_was_due(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    late = asyncio.run(server.ask(ASKS[0], timeout_s=20, due=time.monotonic() - 1))
    assert late.seconds > 1
    dues: list[float | None] = []

    async def noted(self: Server, ask: Ask, *, timeout_s: float, due: float | None = None) -> Answer:
        dues.append(due)
        return Answer(200, 0.0)

    monkeypatch.setattr(Server, "ask", noted)
    began = time.monotonic()
    asyncio.run(http_load.offer(server, ASKS, 40, 0.5, timeout_s=20, seed=3))
    assert len(dues) > 8
    assert all(due is not None and 0 <= due - began < 0.6 for due in dues)


def test_a_server_that_is_gone_or_silent_is_an_answer_of_its_own(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Server(None, http_load.free_port())  # type: ignore[arg-type]
    (answer,) = asyncio.run(http_load.at_once(gone, ASKS, timeout_s=5))
    assert answer.status == 0
    monkeypatch.setattr(Stub, "slow_s", 0.5)
    (answer,) = asyncio.run(http_load.at_once(server, ASKS, timeout_s=0.1))
    assert answer.status == 0


def test_no_loop_is_without_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_load, "MOST_REQUESTS", 5)
    senders: list[Callable[[], object]] = [
        lambda: asyncio.run(http_load.at_once(server, ASKS * 6, timeout_s=5)),
        lambda: asyncio.run(http_load.in_turn(server, ASKS * 6, timeout_s=5)),
        lambda: asyncio.run(http_load.offer(server, ASKS, 1000, 1, timeout_s=5, seed=0)),
    ]
    for send in senders:
        with pytest.raises(SystemExit, match="at most 5"):
            send()
    assert len(asyncio.run(http_load.by_clients(server, ASKS, 2, 5, timeout_s=5))) <= 6
    with pytest.raises(SystemExit):
        serving.main(["--part", "soak", "--minutes", "500"])


def test_a_soak_says_whether_memory_is_flat(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def soaked(*, leak_mb: float, wanted: str) -> dict[str, object]:
        held = iter(range(1000))
        monkeypatch.setattr(Server, "memory_mb", lambda self, name="VmRSS": 500 + leak_mb * next(held))
        return serving.soak(server, ASKS, [wanted], 20, 0.02)

    assert serving.is_sound(soaked(leak_mb=0, wanted="a ball ."))
    assert not serving.is_sound(soaked(leak_mb=10, wanted="a ball ."))
    assert not serving.is_sound(soaked(leak_mb=0, wanted="a box ."))
    monkeypatch.setattr(Stub, "is_full", True)
    assert not serving.is_sound(soaked(leak_mb=0, wanted="a ball ."))


def test_half_of_the_greatest_load_is_of_what_was_answered_in_full() -> None:
    rows = [{"offered_per_s": r, "refused": x, "other": 0.0} for r, x in ((10.0, 0.0), (20.0, 0.0), (40.0, 0.1))]
    assert serving.greatest(rows) == 20
    with pytest.raises(SystemExit):
        serving.greatest(rows[2:])


def test_percentiles_and_chunks() -> None:
    values = [float(n) for n in range(100)]
    assert [http_load.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 99]
    whole = b'{"captions": [{"text": "a ball ."}]}'
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (whole[:6], whole[6:], b""))
    assert serving.texts([Answer(200, 0.1, body) for body in (whole, chunked)]) == ["a ball ."] * 2
    with pytest.raises(SystemExit, match="status 503"):
        serving.texts([Answer(503, 0.1, b"full")])


STUB_SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
time.sleep(0.3)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_is_ended_and_one_that_does_not_start_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUB_SERVER, "{port}"]
    with http_load.serving(command, "/ready", tmp_path / "log", http_load.own_environment()) as server:
        assert server.ready_s > 0.3
        assert server.memory_mb() > 5
        assert server.memory_mb("VmHWM") >= server.memory_mb()
    assert server.process.returncode is not None
    broken = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(SystemExit, match="no such model"),
        http_load.serving(broken, "/ready", tmp_path / "log", http_load.own_environment()),
    ):
        pass
