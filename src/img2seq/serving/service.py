"""From a request to its captions: every route goes through here.

    place in the queue -> body, counted -> parsed -> decoded, in threads -> queue -> batch -> captions

A request has one deadline for all of it. A client that leaves takes its work along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from img2seq.config.decoding import Decoding
from img2seq.errors import DataError
from img2seq.serving.body import ByteBudget, Field, announced_size, media_type, read_body, read_form
from img2seq.serving.limits import Limits, Refusal, busy
from img2seq.serving.models import ServedRun, ServedRuns
from img2seq.serving.worker import Job, Places, Worker

if TYPE_CHECKING:
    from img2seq.inference.predictor import Caption

CLIENT_LEFT = 499  # nginx's number; nobody reads the answer
DECODERS = 2  # threads that parse bodies and decode pictures

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Url:
    """A picture that the server is asked to fetch."""

    text: str


@dataclass(frozen=True)
class Asked:
    """What a request asks for, in whatever form it came.

    Attributes:
        pictures: image files, or where they are.
        model: the run; None for the default one.
        beginnings: what the caption of each picture begins with.
        decoding: settings that are not the defaults.
        kept: what the route needs again to answer.
    """

    pictures: Sequence[bytes | Url]
    model: str | None = None
    beginnings: Sequence[str] = ()
    decoding: Mapping[str, Any] = field(default_factory=dict)
    kept: Any = None


@dataclass(frozen=True)
class Answer:
    """The captions of a request, with what was asked."""

    asked: Asked
    run: ServedRun
    decoding: Decoding
    captions: Sequence[Caption]


@dataclass
class Notes:
    """What the log says of a request, filled in as it goes on."""

    model: str = ""
    n_bytes: int = 0
    n_pictures: int = 0
    read_s: float = 0.0
    decode_s: float = 0.0
    wait_s: float = 0.0
    model_s: float = 0.0
    batch_size: int = 0
    captions: Sequence[str] = ()


Body = bytes | list[Field]
Parse = Callable[[Body], Asked]
Fetch = Callable[[str, int], bytes]


def no_urls(url: str, most: int) -> bytes:
    """Refuse: a server that fetches what it is told to is a way into the network around it."""
    raise Refusal(
        400, "image URL: this server fetches none (--allow-url); send the picture itself, as data:image/...;base64,..."
    )


class Service:
    """What the routes share.

    Args:
        worker: runs the models.
        limits: of requests.
        fetch: returns the picture at a URL, of at most so many bytes.
    """

    def __init__(self, worker: Worker, limits: Limits, *, fetch: Fetch = no_urls):
        self.worker, self.limits, self._fetch = worker, limits, fetch
        self._runs: ServedRuns | None = None
        self._bodies = ByteBudget(max(limits.max_body_memory, limits.max_bytes))
        self._decoders = ThreadPoolExecutor(DECODERS, "pictures")
        self._fetchers = ThreadPoolExecutor(8, "urls")

    @property
    def runs(self) -> ServedRuns:
        """Return the models. Raises Refusal while they are loaded."""
        if self._runs is None:
            raise busy("the model is being loaded", retry_after_s=5)
        return self._runs

    def loaded(self, runs: ServedRuns) -> None:
        """Take the models."""
        self._runs = runs

    async def answer(self, request: Request, parse: Parse) -> Answer:
        """Return the captions of a request.

        Args:
            request: whose body is not read yet.
            parse: returns what it asks for; called in a thread.

        Raises:
            Refusal: where it is too large, too late, or one too many.
            Img2SeqError: for pictures and settings that cannot be used.
        """
        try:
            async with asyncio.timeout(self.limits.timeout_s), _Visit(self, request).placed() as visit:
                return await visit.answer(parse)
        except TimeoutError:
            raise Refusal(504, f"the request was not answered in {self.limits.timeout_s:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(CLIENT_LEFT, "the client left") from None

    async def in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run what may take long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, function, *arguments)

    async def fetch(self, picture: bytes | Url) -> bytes:
        """Return a picture's bytes."""
        if isinstance(picture, bytes):
            return picture
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._fetchers, self._fetch, picture.text, self.limits.max_bytes)

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._fetchers.shutdown(wait=False, cancel_futures=True)


class _Visit:
    """One request on its way."""

    places: Places

    def __init__(self, service: Service, request: Request):
        self.service, self.request, self.worker = service, request, service.worker
        self.began = self.worker.clock()
        self.notes = request.state.notes = Notes()

    @asynccontextmanager
    async def placed(self) -> AsyncIterator[_Visit]:
        with self.worker.places() as self.places:
            self.places.take(1)
            yield self

    async def answer(self, parse: Parse) -> Answer:
        runs, size = self.service.runs, await announced_size(self.request, self.service.limits.max_bytes)
        async with self.service._bodies.hold(size):
            asked = await self.service.in_thread(parse, await self._read())
            run = runs.named(asked.model)
            self.notes.model, self.notes.n_pictures = run.name, len(asked.pictures)
            settings, jobs = await self._decode(asked, run)
            asked = replace(asked, pictures=())  # a picture that waits for the model is its pixels alone
        self.worker.submit(jobs, self.places)
        captions = await _unless_gone(self.request, asyncio.gather(*(asyncio.wrap_future(job.result) for job in jobs)))
        self.notes.wait_s, self.notes.model_s = max(job.waited_s for job in jobs), max(job.took_s for job in jobs)
        self.notes.batch_size = max(job.batch_size for job in jobs)
        self.notes.captions = [caption.text for caption in captions]
        return Answer(asked, run, settings, captions)

    async def _read(self) -> Body:
        limits = self.service.limits
        body: Body
        if media_type(self.request) == "multipart/form-data":
            body = fields = await read_form(self.request, limits.max_bytes, limits.max_pictures)
            self.notes.n_bytes = sum(len(value) for _, value in fields)
        else:
            body = await read_body(self.request, limits.max_bytes)
            self.notes.n_bytes = len(body)
        self.notes.read_s = self.worker.clock() - self.began
        return body

    async def _decode(self, asked: Asked, run: ServedRun) -> tuple[Decoding, list[Job]]:
        began, n, most = self.worker.clock(), len(asked.pictures), self.service.limits.max_pictures
        if not 1 <= n <= most:
            raise Refusal(413 if n else 400, f"expected 1 to {most} pictures in a request; found {n}")
        self.places.take(n - 1)
        settings = run.decoding(asked.decoding)
        beginnings = list(asked.beginnings) or [""] * n

        jobs = []
        # One at a time: a request of many large pictures does not keep others from the threads.
        for i, given in enumerate(asked.pictures):
            try:
                async with self.service._bodies.hold(self.service.limits.max_bytes if isinstance(given, Url) else 0):
                    data = await self.service.fetch(given)
                    picture = await self.service.in_thread(run.picture, data, str(i), beginnings[i], settings)
            except DataError as error:
                raise DataError(str(error) if n == 1 else f"picture {i + 1} of {n}: {error}") from None
            jobs.append(Job((run.name, settings), picture, self.began + self.service.limits.timeout_s))
        self.notes.decode_s = self.worker.clock() - began
        return settings, jobs


async def _unless_gone(request: Request, captions: Awaitable[Sequence[Any]]) -> Sequence[Any]:
    """Wait for captions, unless the client leaves first: then nobody waits for them."""
    waiting = asyncio.ensure_future(captions)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
