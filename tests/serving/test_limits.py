"""What is refused, and that it is refused before it costs anything: one sentence, the right status, nothing of a picture sent back."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from PIL import Image

from children import wait_until
from servers import Served, serving

MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("limits"), run, "--max-bytes", MOST_BYTES, "--max-queue", 8) as served:
        yield served


@pytest.fixture
def png(images: Path) -> bytes:
    return min(images.glob("*.png")).read_bytes()


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    text: str = error["message"] if isinstance(error, dict) else error
    assert 5 < len(text) < 400
    return text


def memory_of(server: Served) -> float:
    (line,) = [line for line in server.get("/metrics").text.splitlines() if line.startswith("process_resident_memory")]
    return float(line.split()[1])


def large_png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def test_a_body_is_counted_as_it_comes(server: Served) -> None:
    """Chunked, without a length: the server stops reading at the limit, whatever would still come."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    try:
        connection.request("POST", "/caption", chunks(), {"Content-Type": "image/png"}, encode_chunked=True)
    except (ConnectionResetError, BrokenPipeError):
        pass
    else:
        assert connection.getresponse().status == 413
    assert sent < 50_000_000  # of 100: some lay in the system's buffers
    connection.close()
    assert server.get("/health").status_code == 200


def test_a_client_that_writes_before_it_reads_sees_the_refusal(server: Served) -> None:
    request = urllib.request.Request(f"{server.url}/caption", bytes(8_000_000), {"Content-Type": "image/png"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
    with caught.value:
        assert (caught.value.code, caught.value.headers["connection"]) == (413, "close")


def test_a_length_that_is_too_large_is_refused_before_the_body(server: Served) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=60) as plain:
        head = (
            "POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            f"Expect: 100-continue\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
        )
        plain.sendall(head.encode())
        assert plain.recv(12) == b"HTTP/1.1 413"


def test_a_form_is_counted_too(server: Served, png: bytes) -> None:
    assert "bytes" in error_of(server.post("/caption", files={"image": bytes(MOST_BYTES)}), 413)
    many = [("image", png) for _ in range(9)]
    assert "Too many" in error_of(server.post("/caption", files=many), 413)
    assert server.post("/caption", files=many[:8]).status_code == 200
    fields = {f"f{i}": "x" for i in range(100)}
    assert error_of(server.post("/caption", files={"image": png}, data=fields), 413)


def test_pixels_are_counted_before_they_are_decoded(server: Served) -> None:
    data = large_png(12_000)
    assert len(data) < MOST_BYTES
    before = memory_of(server)
    assert "12000 x 12000" in error_of(server.post("/caption", files={"image": data}), 400)
    assert memory_of(server) - before < 60e6


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "JSON"),
        (b"[" * 50_000, "parts"),
        (b"[" * 15_000, "JSON"),
        (b'{"a":' * 20_000, "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"{}", "list"),
        (b"[]", "1 to"),
        (b"[1]", "object"),
        (b'[{"captions": ""}]', "missing"),
        (b'[{"photo": 1, "captions": ""}]', "base64"),
        (b'[{"photo": "%%%%", "captions": ""}]', "base64"),
        (b'[{"photo": "", "captions": ""}]', "base64"),
        (b'[{"photo": "aGVsbG8=", "captions": ""}]', "image"),
        (b'[{"photo": "aGVsbG8=", "captions": 3}]', "text"),
        (b'[{"photo": "aGVsbG8=", "caption": ""}]', "captions"),
    ],
)
def test_a_json_body_that_cannot_be_used(server: Served, body: bytes, part: str) -> None:
    answer = server.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422)
    assert part in error_of(answer, answer.status_code)


def test_a_picture_that_cannot_be_used_is_named_and_not_sent_back(server: Served, png: bytes) -> None:
    broken = png[: len(png) // 2]
    text = error_of(server.post("/caption", files=[("image", png), ("image", broken), ("image", png)]), 400)
    assert "picture 2 of 3" in text
    encoded = base64.b64encode(broken).decode()
    answer = server.post("/predict", json=[{"photo": encoded, "captions": ""}])
    error_of(answer, 400)
    assert encoded[:40] not in answer.text
    assert encoded[:40] not in server.log.read_text()


@pytest.mark.parametrize(
    ("query", "status", "part"),
    [
        ("beam_size=0", 422, "1 to 1000"),
        ("beam_size=x", 422, "beam_size"),
        ("beam_size=65", 422, "64"),
        ("method=sample&n_best=65", 422, "64"),
        ("max_length=513", 422, "512"),
        ("min_length=40", 422, "min_length"),
        ("bean_size=3", 422, "beam_size"),
        ("temperature=nan", 422, "temperature"),
        ("model=imag", 404, "image"),
        ("beginning=zzz", 400, "zzz"),
        ("beginning=a+a+a+a+a+a&max_length=3", 400, "max_length"),
    ],
)
def test_settings_are_checked_by_the_place_that_declares_them(
    server: Served, png: bytes, query: str, status: int, part: str
) -> None:
    assert part in error_of(server.post(f"/caption?{query}", files={"image": png}), status)


def test_other_kinds_of_bodies(server: Served, png: bytes) -> None:
    assert error_of(server.post("/caption", json={}), 415)
    assert error_of(server.post("/caption", files={"picture": png}), 400)
    assert error_of(server.post("/caption", data={"beam_size": "3"}, files={"image": ("", b"")}), 400)
    assert error_of(
        server.post("/caption", content=png, headers={"Content-Type": "image/png", "Content-Encoding": "gzip"}), 415
    )
    broken = server.post(
        "/caption", content=b"--x\r\nrubbish", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert error_of(broken, 400)
    assert error_of(server.post("/caption", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400)
    assert error_of(server.get("/nowhere"), 404)
    assert error_of(server.get("/caption"), 405)
    for path in ("/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/..%2fapp.py", "/page/nothing.js"):
        assert error_of(server.get(path), 404)


def test_headers_without_end_are_refused(server: Served) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=60) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\n" + b"X-Long: " + b"a" * 100_000)
        assert plain.recv(12) == b"HTTP/1.1 400"


def test_no_url_is_fetched(server: Served) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/secret.png"
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": content}]}
        assert "--allow-url" in error_of(server.post("/v1/chat/completions", json=body), 400)
        assert "base64" in error_of(server.post("/predict", json=[{"photo": url, "captions": ""}]), 400)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_one_line_of_the_log_a_request(server: Served, png: bytes) -> None:
    answer = server.post("/caption", files={"image": png}, headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    wait = time.monotonic() + 20
    while "mine-1" not in server.log.read_text():
        assert time.monotonic() < wait
    (line,) = [json.loads(text) for text in server.log.read_text().splitlines() if "mine-1" in text]
    assert (line["status"], line["path"], line["pictures"], line["bytes"]) == (200, "/caption", 1, len(png))
    assert answer.json()["captions"][0]["text"] not in json.dumps(line)
    forged = server.get("/health", headers={"X-Request-ID": 'a"} {"id": "b'})
    assert len(forged.headers["x-request-id"]) == 32


def test_what_prometheus_reads(server: Served, png: bytes) -> None:
    server.post("/caption", files={"image": png})
    text = server.get("/metrics").text
    assert 'img2seq_requests_total{route="/caption",status="200"}' in text
    assert "img2seq_ready 1.0" in text
    assert "process_resident_memory_bytes" in text


def test_settings_stand_in_openapi_with_ranges_and_defaults(server: Served) -> None:
    schema = server.get("/openapi.json").json()
    parameters = {p["name"]: p["schema"] for p in schema["paths"]["/caption"]["post"]["parameters"]}
    assert parameters["beam_size"] | {"description": ""} == {
        "type": "integer", "default": 5, "minimum": 1, "maximum": 64, "description": ""
    }  # fmt: skip
    info = server.get("/info").json()
    assert info["decoding"]["beam_size"]["maximum"] == 64
    assert info["limits"]["max_bytes"] == MOST_BYTES


def test_balancers_may_ask_without_a_body(server: Served) -> None:
    for path in ("/health", "/ready"):
        answer = httpx2.head(f"{server.url}{path}", trust_env=False)
        assert (answer.status_code, answer.content) == (200, b"")


def test_docs_load_nothing_from_elsewhere(server: Served) -> None:
    page = server.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "beam_size" in page.text
    assert "1 to 64" in page.text
    assert "http" not in page.text.replace(server.url, "")
    assert server.get("/page/docs.css").headers["content-type"].startswith("text/css")


def test_a_small_picture_does_not_wait_for_slow_uploads(tmp_path: Path, run: Path, png: bytes) -> None:
    with serving(tmp_path, run) as large, ExitStack() as stack:
        address = urlsplit(large.url)
        head = b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 16000000\r\n\r\nx"
        for _ in range(6):
            slow = stack.enter_context(socket.create_connection((address.hostname, address.port or 0)))
            slow.sendall(head)
        wait_until(lambda: "img2seq_queue_pictures 6.0" in large.get("/metrics").text)
        assert large.post("/caption", files={"image": png}).status_code == 200
        assert "img2seq_queue_pictures 6.0" in large.get("/metrics").text  # they are still there


def test_of_a_broken_request_nothing_is_decoded_any_more(server: Served, png: bytes) -> None:
    broken = [("image", png[:50]), *[("image", large_png(9000))] * 7]
    assert error_of(server.post("/caption", files=broken), 400)
    answer = server.post("/caption", files={"image": png}, headers={"X-Request-ID": "after-a-broken-one"})
    assert answer.status_code == 200
    wait_until(lambda: "after-a-broken-one" in server.log.read_text())
    (line,) = [json.loads(text) for text in server.log.read_text().splitlines() if "after-a-broken-one" in text]
    assert line["decode_ms"] < 5000  # seven times a second or more where they are


def test_json_of_too_many_parts(server: Served) -> None:
    body = b"[" + b"{}," * 30_000 + b"{}]"
    assert "parts" in error_of(server.post("/predict", content=body, headers={"Content-Type": "application/json"}), 413)


def test_base64_may_be_broken_into_lines(server: Served, png: bytes) -> None:
    lines = base64.encodebytes(png).decode()
    assert "\n" in lines
    assert server.post("/predict", json=[{"photo": lines, "captions": ""}]).status_code == 200
    assert error_of(server.post("/predict", json=[{"photo": "é" + lines, "captions": ""}]), 400)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "x-unknown"])
def test_charsets_of_forms(server: Served, png: bytes, charset: str) -> None:
    form = httpx2.Request("POST", "http://x/", files={"image": png}, data={"beginning": "é"})
    headers = {"Content-Type": f"{form.headers['content-type']}; charset={charset}"}
    assert server.post("/caption", content=form.read(), headers=headers).status_code == 400


def test_a_form_where_json_is_expected(server: Served, png: bytes) -> None:
    for path in ("/predict", "/v1/chat/completions", "/models/image"):
        assert error_of(server.post(path, files={"image": png}), 415)


def test_a_png_may_have_more_behind_its_end(server: Served, png: bytes) -> None:
    alone = server.post("/caption", files={"image": png}).json()["captions"][0]["text"]
    behind = server.post("/caption", files={"image": png + bytes(150_000)}).json()["captions"][0]["text"]
    assert behind == alone


def test_names_of_pages_of_any_length(server: Served) -> None:
    assert error_of(server.get(f"/page/{'a' * 300}.js"), 404)
