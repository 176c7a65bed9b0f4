"""A request's body: counted as it comes, and all bodies together bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from img2seq.serving.limits import Refusal

SMALL_BYTES = 1_000_000  # of a body that waits for no other
DRAINED_BYTES, DRAINED_S = 10_000_000, 2.0  # of a body that is too large
MOST_FIELDS, MOST_FIELD_BYTES = 64, 10_000  # of a form, beside its pictures

Field = tuple[str, str | bytes]  # name and text, or the bytes of a file


class ByteBudget:
    """Bytes that all bodies may take together. Who does not fit waits in turn, so that many uploads do not fill the memory.

    Small ones pass the line: slow uploads of large ones keep up each other, and nobody else.
    """

    def __init__(self, most: int):
        self.most, self.held = most, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, n: int) -> AsyncIterator[None]:
        """Hold so many bytes, at most all of them."""
        n = 0 if n <= SMALL_BYTES else min(n, self.most)
        if n and (self._waiting or self.held + n > self.most):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((n, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.held -= n  # its turn came at the moment it gave up
                elif (n, turn) in self._waiting:
                    self._waiting.remove((n, turn))
                self._let_in()
                raise
        else:
            self.held += n
        try:
            yield
        finally:
            self.held -= n
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.held + self._waiting[0][0] <= self.most:
            n, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.held += n
                turn.set_result(None)


class _Form(MultiPartParser):
    spool_max_size = 1 << 40  # in memory: the body is bounded, and a container may have no disk to write to


def media_type(request: Request) -> str:
    """Return what kind of body a request says it has, without parameters: image/png; "" where it does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def announced_size(request: Request, most: int) -> int:
    """Return how large a body says it is; `most` where it does not say. Raises Refusal for one that is too large."""
    if "content-encoding" in request.headers:
        raise Refusal(415, "content-encoding: expected a body that is not compressed")
    text = request.headers.get("content-length", "")
    size = int(text) if text.isascii() and text.isdigit() else most
    if size > most:
        if "expect" not in request.headers:  # who does not ask first sends it in any case
            await _drain(request)
        raise _too_large(most)
    return size


async def read_body(request: Request, most: int) -> bytes:
    """Read a body. Raises Refusal as soon as it is longer than `most` bytes."""
    return b"".join([chunk async for chunk in _counted(request, most)])


async def read_form(request: Request, most: int, most_files: int) -> list[Field]:
    """Read a multipart form. Raises Refusal if it is damaged, longer than `most` bytes, or has too many parts."""
    parser = _Form(
        request.headers,
        _counted(request, most),  # type: ignore[arg-type]
        max_files=most_files,
        max_fields=MOST_FIELDS,
        max_part_size=MOST_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        too_many = error.message.startswith(("Too many", "Part exceeded"))
        raise Refusal(413 if too_many else 400, f"multipart form: {error.message}") from None
    except UnicodeError as error:
        raise Refusal(400, f"multipart form: its charset: {error}") from None
    fields: list[Field] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.append((name, value))
        else:
            fields.append((name, await value.read()))
            await value.close()
    return fields


async def _counted(request: Request, most: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            await _drain(request)
            raise _too_large(most)
        yield chunk


async def _drain(request: Request) -> None:
    """Drop some of what still comes: clients that write before they read see our answer only when they are done."""
    left = DRAINED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_S):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"body: expected at most {most:,} bytes (--max-bytes)", closes=True)
