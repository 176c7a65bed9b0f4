"""Pictures at URLs, from hosts that the operator named, and from nowhere else.

A name is looked up once, and the connection goes to the address that was checked: one that is not public is refused, whatever the name.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urljoin, urlsplit

from img2seq.errors import DataError, shown
from img2seq.serving.limits import Refusal

TIMEOUT_S = 10.0
MOST_REDIRECTS = 3
CHUNK = 1 << 16


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.is_global and not found.is_multicast


class Fetcher:
    """Fetches pictures.

    Args:
        hosts: that may be asked, with or without a port.
        may_connect: tells whether an address may be connected to.
    """

    def __init__(self, hosts: Iterable[str], *, may_connect: Callable[[str], bool] = is_public):
        self.hosts = {host.lower() for host in hosts}
        self._may_connect = may_connect

    def __call__(self, url: str, most: int) -> bytes:
        """Return the picture at a URL.

        Raises:
            Refusal: where the host is not allowed, or the picture is larger than `most` bytes.
            DataError: where it cannot be had.
        """
        for _ in range(MOST_REDIRECTS + 1):
            target = self._checked(url)
            try:
                found = self._get(target, most)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise DataError(f"image URL: cannot be fetched: {error}") from None
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
            if urlsplit(url).netloc.lower() != target.netloc.lower():
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

    def _get(self, target: SplitResult, most: int) -> bytes | str:
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
                data = b""
                while chunk := answer.read(CHUNK):
                    data += chunk
                    if len(data) > most:
                        raise Refusal(413, f"image URL: expected at most {most:,} bytes (--max-bytes)")
                return data
        finally:
            connection.close()

    def _connected(self, host: str, port: int, *, secure: bool) -> socket.socket:
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        if not all(map(self._may_connect, addresses)):
            raise Refusal(400, f"image URL: {shown(host)} is not an address of the open internet")
        plain = socket.create_connection((addresses[0], port), timeout=TIMEOUT_S)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
