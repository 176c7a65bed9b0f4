"""Pictures at URLs, from hosts that the operator named, and from nowhere else.

A name is looked up once, and the connection goes to the address that was checked: one that is not public is refused, whatever the name.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urljoin, urlsplit

from img2seq.errors import ConfigError, DataError, shown
from img2seq.serving.limits import Refusal

TIMEOUT_S = 10.0
MOST_REDIRECTS = 3
CHUNK = 1 << 16
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", re.ASCII)


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.is_global and not found.is_multicast


class Fetcher:
    """Fetches pictures.

    Args:
        hosts: that may be asked, with or without a port.
        may_connect: tells whether an address may be connected to.

    Raises:
        ConfigError: for what is no host.
    """

    def __init__(self, hosts: Iterable[str], *, may_connect: Callable[[str], bool] = is_public):
        self.hosts = {host.lower() for host in hosts}
        for host in self.hosts:
            if not HOST.fullmatch(host):
                raise ConfigError(
                    f"--allow-url: expected a host, such as images.example.com or 10.0.0.1:8080; found {shown(host)}"
                )
        self._may_connect = may_connect

    def __call__(self, url: str, most: int) -> bytes:
        """Return the picture at a URL.

        Raises:
            Refusal: where the host is not allowed, or the picture is larger than `most` bytes.
            DataError: where it cannot be had.
        """
        until = time.monotonic() + TIMEOUT_S  # for all of it: a host may send a byte now and then for ever
        for _ in range(MOST_REDIRECTS + 1):
            target = self._checked(url)
            try:
                found = self._get(target, most, until)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
                netloc = urlsplit(url).netloc
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise DataError(f"image URL: cannot be fetched: {error}") from None
            if netloc.lower() != target.netloc.lower():
                raise Refusal(400, f"image URL: {target.netloc} sends on to another host, which is not followed")
        raise DataError("image URL: it is sent on and on")

    def _checked(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise DataError(f"image URL: cannot be read: {error}") from None
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            raise Refusal(400, "image URL: expected http or https, without a name and password")
        if host not in self.hosts and f"{host}:{port}" not in self.hosts:
            raise Refusal(400, f"image URL: this server does not fetch from {shown(host)} (--allow-url)")
        if port not in (None, 80, 443) and f"{host}:{port}" not in self.hosts:
            raise Refusal(400, f"image URL: port {port} of {shown(host)} is not allowed (--allow-url {host}:{port})")
        return parts

    def _get(self, target: SplitResult, most: int, until: float) -> bytes | str:
        """Return the picture, or where it is said to be."""
        host = target.hostname or ""
        port = target.port or (443 if target.scheme == "https" else 80)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        connection.sock = self._connected(host, port, secure=target.scheme == "https")
        try:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "img2seq"})
            with connection.getresponse() as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    return answer.headers.get("Location", "")
                if answer.status != 200:
                    raise DataError(f"image URL: {host} answers {answer.status}")
                data = bytearray()
                while chunk := answer.read1(CHUNK):
                    data += chunk
                    if time.monotonic() > until:
                        raise TimeoutError(f"not there after {TIMEOUT_S:g} seconds")
                    if len(data) > most:
                        raise Refusal(413, f"image URL: expected at most {most:,} bytes (--max-bytes)")
                return bytes(data)
        finally:
            connection.close()

    def _connected(self, host: str, port: int, *, secure: bool) -> socket.socket:
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not all(map(self._may_connect, addresses)):
            raise Refusal(400, f"image URL: {shown(host)} is not an address of the open internet")
        plain = socket.create_connection((addresses[0], port), timeout=TIMEOUT_S)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
