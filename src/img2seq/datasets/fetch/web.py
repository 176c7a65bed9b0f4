"""One request for a part of a file, and what can go wrong with it as one sentence with the address."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib.parse import urljoin, urlsplit

from img2seq import __version__
from img2seq.errors import ConfigError, DataError, shown

TIMEOUT_S = 30.0  # without a byte
WORTH_ANOTHER_TRY = (408, 425, 429)  # and all from 500


class Dropped(Exception):
    """A connection that ended, or a server that is busy: worth another try.

    Attributes:
        is_unreachable: no server answered at all. At the first request that is the user's to put right.
    """

    def __init__(self, why: str, *, is_unreachable: bool = False):
        super().__init__(why)
        self.is_unreachable = is_unreachable


class Changed(Exception):
    """The server has another file at the address than it had before."""


@dataclass
class Answer:
    """What a server gives of a file.

    Attributes:
        body: to read from.
        begin: the first byte of the file in the body.
        n_bytes: of the whole file, None where the server does not say.
        validator: names this version of the file (an ETag or a date), "" where the server gives none.
        has_ranges: the server gives parts of files.
    """

    body: IO[bytes]
    begin: int
    n_bytes: int | None
    validator: str
    has_ranges: bool


def mirrored(address: str, mirror: str | None) -> str:
    """Return where a mirror has a file: at the path that it has at its host.

    Raises:
        ConfigError: for a mirror that is no http or https address.
    """
    if mirror is None:
        return address
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"--mirror: expected an address such as https://mirror.org/coco; found {shown(mirror)}")
    return mirror.rstrip("/") + urlsplit(address).path


class _SameHost(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        here, there = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        is_less_secure = (here.scheme, there.scheme) == ("https", "http")
        if here.hostname != there.hostname or is_less_secure:
            where = "a connection that is not secure" if is_less_secure else "another host"
            raise DataError(
                f"{req.full_url}: redirects to {where}, {shown(newurl)}; if you trust it, fetch from there with --mirror"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def ask(address: str, begin: int, end: int, validator: str = "") -> Answer:
    """Ask a server for the bytes `begin` to `end` (exclusive) of a file; where it gives no parts, the answer begins at 0.

    Args:
        address: of the file.
        begin: the first byte.
        end: behind the last byte.
        validator: what the file must still be; else the server gives the whole of the other one.

    Raises:
        DataError: where another try would not help.
        Changed: where the server has a shorter file now.
        Dropped: where another try may help.
    """
    headers = {
        "User-Agent": f"img2seq/{__version__}",
        "Accept-Encoding": "identity",
        "Range": f"bytes={begin}-{end - 1}",
    }
    if validator:
        headers["If-Range"] = validator
    opener = urllib.request.build_opener(_SameHost)  # reads http_proxy and its kin
    try:
        response = opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _reason(address, error) from error
    length = response.headers.get("Content-Length", "")
    n_bytes = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    if response.status != 206:
        return Answer(response, 0, n_bytes, _validator(response.headers), has_ranges=False)
    part = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", response.headers.get("Content-Range", ""))
    if part is None or int(part[1]) != begin:
        response.close()
        found = shown(response.headers.get("Content-Range"))
        raise DataError(f"{address}: asked for the bytes from {begin:,}, the server gives others: {found}")
    return Answer(response, begin, int(part[2]), _validator(response.headers), has_ranges=True)


def _validator(headers: Message) -> str:
    etag = str(headers.get("ETag", ""))
    return str(headers.get("Last-Modified", "")) if etag.startswith("W/") or not etag else etag


def _reason(address: str, error: Exception) -> Exception:
    """Return what an error of the network means to a user, or that another try may help."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == 416:
            return Changed()
        answers = f"the server answers {error.code} ({http.client.responses.get(error.code, 'no known code')})"
        if error.code < 400:
            answers = "the server redirects again and again"
        if error.code >= 500 or error.code in WORTH_ANOTHER_TRY:
            return Dropped(answers)
        return DataError(f"{address}: {answers}; has the file moved? Another address is given with --mirror")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(f"{address}: the server's certificate cannot be trusted: {reason.verify_message}")
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return DataError(f"{address}: no secure connection: {reason.reason or reason}")
    if isinstance(reason, socket.gaierror):
        host = urlsplit(address).hostname
        return Dropped(f"the host {host} cannot be found; is this machine online?", is_unreachable=True)
    if isinstance(reason, ConnectionRefusedError):
        return Dropped("the host refuses the connection", is_unreachable=True)
    if isinstance(reason, TimeoutError):
        return Dropped(f"no answer within {TIMEOUT_S:g} s")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return DataError(f"{address}: not an address that can be fetched: {error}")
    return Dropped(f"the connection ended: {getattr(reason, 'strerror', None) or reason or type(reason).__name__}")
