"""Pictures at URLs: from named hosts, from addresses of the open internet, and nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from img2seq.errors import ConfigError, DataError
from img2seq.serving.fetch import Fetcher, is_public
from img2seq.serving.limits import Refusal


class Pictures(BaseHTTPRequestHandler):
    """Answers by the path; keeps what was asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        port = self.connection.getsockname()[1]
        targets = {
            "/again": "/picture",
            "/away": f"http://localhost:{port}/picture",
            "/round": "/round",
            "/bad": "http://[bad/",
        }
        if self.path in targets:
            self.send_response(302)
            self.send_header("Location", targets[self.path])
            self.end_headers()
        elif self.path == "/none":
            self.send_error(404)
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                time.sleep(0.05)
                with suppress(OSError):  # the other side has gone
                    self.wfile.write(b"x")
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (1000 if self.path == "/picture" else 10_000_000))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def named(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def test_pictures_come_from_named_hosts(host: ThreadingHTTPServer) -> None:
    fetch = Fetcher([named(host)], may_connect=lambda address: True)
    assert fetch(f"http://{named(host)}/picture", 1000) == b"x" * 1000
    assert fetch(f"http://{named(host)}/again", 1000) == b"x" * 1000
    with pytest.raises(Refusal) as caught:
        fetch(f"http://{named(host)}/large", 100_000)
    assert caught.value.status == 413
    with pytest.raises(DataError, match="404"):
        fetch(f"http://{named(host)}/none", 1000)
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch(f"http://{named(host)}/bad", 1000)
    with pytest.raises(DataError, match="on and on"):
        fetch(f"http://{named(host)}/round", 1000)


def test_no_redirect_to_another_host_is_followed(host: ThreadingHTTPServer) -> None:
    with pytest.raises(Refusal, match="another host"):
        Fetcher([named(host), "localhost"], may_connect=lambda address: True)(f"http://{named(host)}/away", 1000)
    assert host.asked == ["/away"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    ["http://{}/picture", "http://LOCALHOST:{port}/picture", "http://user:pw@{}/picture", "http://x@{}/", "https://other.example/x.png", "http://[::1]/x", "http://example.com:22/x"],
)  # fmt: skip
def test_what_may_not_be_asked_is_not(url: str, host: ThreadingHTTPServer) -> None:
    """Private addresses are refused although the operator named the host: a name may lead anywhere."""
    fetch = Fetcher([named(host), "localhost", "example.com"])
    with pytest.raises(Refusal) as caught:
        fetch(url.format(named(host), port=host.server_address[1]), 1000)
    assert caught.value.status == 400
    assert host.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "224.0.0.1"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


def test_damaged_urls() -> None:
    for url in ("http://[", "http://a:b/x", "http://"):
        with pytest.raises((Refusal, DataError)):
            Fetcher(["a"])(url, 10)


def test_a_host_that_drips_is_given_up(host: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("img2seq.serving.fetch.TIMEOUT_S", 0.3)
    with pytest.raises(DataError, match=r"not there after 0\.3"):
        Fetcher([named(host)], may_connect=lambda address: True)(f"http://{named(host)}/drip", 10_000)


@pytest.mark.parametrize("name", ["https://a.example", "a.example/", "[::1]", "a.example.", "", "a b"])
def test_what_is_no_host_is_said_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a host"):
        Fetcher([name])
