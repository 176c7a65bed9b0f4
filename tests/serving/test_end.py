"""How a server begins and ends: wrong runs, ports, keys; SIGTERM; clients that leave; models that fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from children import exit_code, wait_until
from conftest import img2seq
from servers import Served, serving

GATE = "IMG2SEQ_TEST_GATE"


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file: as long as it exists, batches wait."""
    path = tmp_path / "gate"
    monkeypatch.setenv(GATE, str(path))
    return path


def plant_gate() -> None:
    """Make captioning wait for the gate, in the server's process."""
    from img2seq.serving.models import ServedRuns

    before, path = ServedRuns.caption, Path(os.environ[GATE])

    def caption(runs: ServedRuns, jobs: Any) -> Any:
        path.with_name("begun").touch()
        while path.exists():
            time.sleep(0.01)
        if path.with_name("die").exists():
            raise SystemExit(9)
        return before(runs, jobs)

    ServedRuns.caption = caption  # type: ignore


def begin_blocked_request(server: Served, pool: ThreadPoolExecutor, gate: Path, png: bytes) -> Any:
    gate.touch()
    answer = pool.submit(server.post, "/caption", files={"image": png})
    wait_until(gate.with_name("begun").exists)
    return answer


@pytest.fixture
def png(images: Path) -> bytes:
    return min(images.glob("*.png")).read_bytes()


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(
    tmp_path: Path, run: Path, gate: Path, png: bytes
) -> None:
    with serving(tmp_path, run, "--max-batch", 1, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        answers = [
            begin_blocked_request(server, pool, gate, png),
            pool.submit(server.post, "/caption", files={"image": png}),
        ]
        wait_until(lambda: "img2seq_queue_pictures 1.0" in server.get("/metrics").text)
        os.kill(server.process.pid or 0, signal.SIGTERM)
        wait_until(lambda: server.get("/ready").status_code == 503)
        assert server.get("/ready").json() == {"status": "draining"}
        assert server.get("/health").status_code == 200
        refused = server.post("/caption", files={"image": png})
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        gate.unlink()
        assert [answer.result(60).status_code for answer in answers] == [200, 200]
        assert exit_code(server.process) == 0


def test_a_second_signal_ends_at_once(tmp_path: Path, run: Path, gate: Path, png: bytes) -> None:
    with serving(tmp_path, run, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        answer = begin_blocked_request(server, pool, gate, png)
        for _ in range(2):
            os.kill(server.process.pid or 0, signal.SIGINT)
            time.sleep(0.2)
        exit_code(server.process, patience_s=30)
        assert answer.exception(60) is not None or answer.result().status_code == 503


def test_a_model_that_dies_ends_the_server(tmp_path: Path, run: Path, gate: Path, png: bytes) -> None:
    with serving(tmp_path, run, "--max-batch", 1, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        first = begin_blocked_request(server, pool, gate, png)
        second = pool.submit(server.post, "/caption", files={"image": png})
        wait_until(lambda: "img2seq_queue_pictures 1.0" in server.get("/metrics").text)
        gate.with_name("die").touch()
        gate.unlink()
        assert [answer.result(60).status_code for answer in (first, second)] == [503, 503]
        assert exit_code(server.process) == 2
    assert "error: the model failed: SystemExit" in server.log.read_text()


def test_health_does_not_wait_for_the_model(tmp_path: Path, run: Path, gate: Path, png: bytes) -> None:
    with serving(tmp_path, run, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        answer = begin_blocked_request(server, pool, gate, png)
        assert [server.get(path).status_code for path in ("/health", "/ready", "/info", "/metrics", "/v1/models")] == [
            200
        ] * 5
        assert not answer.done()
        gate.unlink()
        assert answer.result(60).status_code == 200


def test_a_client_that_leaves_takes_its_work_along(tmp_path: Path, run: Path, gate: Path, png: bytes) -> None:
    with serving(tmp_path, run, "--max-batch", 1, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        first = begin_blocked_request(server, pool, gate, png)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{server.url}/caption", files={"image": png}, timeout=httpx2.Timeout(30, read=1), trust_env=False
            )
        last = pool.submit(server.post, "/caption", files={"image": png})
        wait_until(lambda: '"status": 499' in server.log.read_text())
        gate.unlink()
        assert [answer.result(60).status_code for answer in (first, last)] == [200, 200]
        assert (
            "img2seq_batch_pictures_count 2.0" in server.get("/metrics").text
        )  # the one that left was never captioned


def test_a_request_has_so_long(tmp_path: Path, run: Path, gate: Path, png: bytes) -> None:
    with serving(tmp_path, run, "--timeout-s", 1, plant=plant_gate) as server, ThreadPoolExecutor() as pool:
        answer = begin_blocked_request(server, pool, gate, png)
        assert answer.result(60).status_code == 504
        address = urlsplit(server.url)
        with socket.create_connection(
            (address.hostname, address.port or 0), timeout=60
        ) as slow:  # a body that never comes
            slow.sendall(b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n")
            assert slow.recv(12) == b"HTTP/1.1 504"
        gate.unlink()
        wait_until(lambda: "img2seq_queue_pictures 0.0" in server.get("/metrics").text)
        assert server.post("/caption", files={"image": png}).status_code == 200


def test_many_uploads_wait_for_memory_and_all_are_answered(tmp_path: Path, run: Path, png: bytes) -> None:
    with serving(tmp_path, run, "--max-bytes", 60_000_000) as server, ThreadPoolExecutor(12) as pool:
        body = png + bytes(15_000_000)  # what follows the picture is not looked at
        answers = [
            pool.submit(server.post, "/caption", content=body, headers={"Content-Type": "image/png"}) for _ in range(12)
        ]
        assert {answer.result(120).status_code for answer in answers} == {200}


def test_keys(tmp_path: Path, run: Path, png: bytes) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("\ufefffirst-key\n# ours\nsecond-key\n")
    with serving(tmp_path, run, "--api-key-file", keys, "--log-captions") as server:
        for path in ("/health", "/ready"):
            assert server.get(path).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer # ours"},
        ):
            answer = server.post("/caption", files={"image": png}, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert server.get("/metrics", headers=headers).status_code == 401
        for value in ("Bearer first-key", "Bearer second-key", "bearer first-key"):
            answer = server.post("/caption", files={"image": png}, headers={"Authorization": value})
            assert answer.status_code == 200
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if '"captions"' in line]
    assert answer.json()["captions"][0]["text"] in lines[-1]["captions"]
    assert "first-key" not in server.log.read_text()


def test_several_runs(tmp_path: Path, run: Path, png: bytes) -> None:
    link = tmp_path / "current run"
    link.symlink_to(run, target_is_directory=True)
    with serving(tmp_path, run, link) as server:
        assert [model["name"] for model in server.get("/info").json()["models"]] == [run.name, "current run"]
        assert server.post("/caption?model=current+run", files={"image": png}).json()["model"] == "current run"
        assert server.post("/caption", files={"image": png}).json()["model"] == run.name


def test_what_is_wrong_is_said_before_it_serves(
    tmp_path: Path, run: Path, finished_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "empty.txt").write_text("# none\n")
        (tmp_path / "umlaut.txt").write_text("schlüssel\n", encoding="utf-8")
        for arguments, part in (
            ([run.parent / "imagee"], "image"),
            ([run, run], "different names"),
            ([run, "--port", port], str(port)),
            ([run, "--host", "no.such.host.invalid"], "no.such.host.invalid"),
            ([run, "--api-key-file", tmp_path / "empty.txt"], "empty.txt"),
            ([run, "--api-key-file", tmp_path / "none.txt"], "none.txt"),
            ([run, "--api-key-file", tmp_path / "umlaut.txt"], "ASCII"),
            ([run, "--max-queue", 0], "max-queue"),
            ([run, "--port", 0, "--allow-url", "https://images.example.com"], "images.example.com"),
            ([finished_runs[0], "--port", 0], "image input"),
        ):
            assert img2seq("serve", *map(str, arguments)) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("error: ")
            assert part in error


def test_a_log_that_nobody_reads_ends_nothing(tmp_path: Path, run: Path, png: bytes) -> None:
    with serving(tmp_path, run, plant=_close_standard_error_later) as server:
        time.sleep(0.5)
        assert server.post("/caption", files={"image": png}).status_code == 200


def _close_standard_error_later() -> None:
    import sys

    def close() -> None:
        while "ready after" not in Path(f"/proc/self/fd/{sys.stderr.fileno()}").resolve().read_text():
            time.sleep(0.05)
        os.close(2)

    threading.Thread(target=close, daemon=True).start()
