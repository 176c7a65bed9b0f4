"""The one thread that runs models: a bounded queue before it, and batches formed across requests.

    loading --> ready --> draining --> stopped
                  `--> failed: the model no longer captions anything; whoever waits is told, and the process ends

A place in the queue is taken before a request's body is read, so that a full server says so before it does any work. Whoever
leaves gives back the place, and work that nobody waits for any more is never run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from img2seq.errors import Img2SeqError
from img2seq.serving.limits import Limits, Refusal, busy

State = Literal["loading", "ready", "draining", "stopped", "failed"]
FULL = "the queue is full"


@dataclass(eq=False)
class Job:
    """A picture that waits for its caption.

    Attributes:
        key: of what may share a batch: the model and the decoding settings.
        payload: what the model needs.
        deadline: after which nobody wants the caption, by the worker's clock.
        result: the caption.
        queued_at: when it came, by the worker's clock.
        waited_s: how long it stood in the queue.
        took_s: how long its batch took.
        batch_size: pictures in its batch.
    """

    key: Hashable
    payload: Any
    deadline: float
    result: Future[Any] = field(default_factory=Future)
    queued_at: float = 0.0
    waited_s: float = 0.0
    took_s: float = 0.0
    batch_size: int = 0


class Models:
    """What a worker runs."""

    def caption(self, jobs: Sequence[Job]) -> Sequence[Any]:
        """Return the caption of each job of a batch; all have one key."""
        raise NotImplementedError

    def probe(self) -> None:
        """Caption a blank picture with each model: warms it up, and raises whatever is wrong with it."""
        raise NotImplementedError


class Places:
    """Places in the queue that a request holds until its pictures are submitted."""

    def __init__(self, worker: Worker):
        self._worker, self.n = worker, 0

    def take(self, n: int) -> None:
        """Take more places. Raises Refusal where the queue has not so many."""
        self._worker._take(n, is_in=self.n > 0)
        self.n += n


class Worker:
    """A thread that captions.

    Args:
        load: called in the thread: returns the models, or raises.
        limits: of the queue and of batches.
        clock: seconds.
    """

    def __init__(self, load: Callable[[], Models], limits: Limits, *, clock: Callable[[], float] = time.monotonic):
        self._load, self.limits, self.clock = load, limits, clock
        self.state: State = "loading"
        self.failure: BaseException | None = None
        self.observe: Callable[[list[Job]], None] = lambda batch: None  # called after each batch
        self.when_over: Callable[[], None] = lambda: None  # called from the thread when it ends other than by `stop`
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._n_taken = 0  # places: of requests that are read, and of jobs in the queue
        self._running: list[Job] = []
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to load the models."""
        self._thread.start()

    # --- for requests --------------------------------------------------------------------------------------

    @property
    def n_waiting(self) -> int:
        """Return how many places of the queue are taken."""
        return self._n_taken

    @property
    def is_idle(self) -> bool:
        """Tell whether nobody waits for a caption."""
        with self._changed:
            return not self._n_taken and not self._running

    @contextmanager
    def places(self) -> Iterator[Places]:
        """Hold places in the queue; those that no picture was submitted for are given back."""
        places = Places(self)
        try:
            yield places
        finally:
            with self._changed:
                self._n_taken -= places.n
            places.n = 0

    def submit(self, jobs: Sequence[Job], places: Places) -> None:
        """Put jobs into the queue, each on one of these places. Raises Refusal where the worker is over."""
        with self._changed:
            if self.state not in ("ready", "draining"):
                raise self._not_ready()
            for job in jobs:
                job.queued_at = self.clock()
                job.result.add_done_callback(lambda _: self._wake())
                self._queue.append(job)
            places.n -= len(jobs)
            self._changed.notify_all()

    def _take(self, n: int, *, is_in: bool) -> None:
        with self._changed:
            if self.state != "ready" and not (is_in and self.state == "draining"):  # what was accepted is finished
                raise self._not_ready()
            if self._n_taken + n > self.limits.max_queue:
                self._leave_out_cancelled()
            if self._n_taken + n > self.limits.max_queue:
                raise busy(f"{FULL}: {self._n_taken} of {self.limits.max_queue} pictures wait")
            self._n_taken += n

    def _not_ready(self) -> Refusal:
        return busy(
            {
                "loading": "the model is being loaded",
                "draining": "the server is about to stop",
                "stopped": "the server has stopped",
            }.get(self.state, "the model has failed; the server stops"),
            retry_after_s=5,
        )

    # --- the end -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new work; what was accepted is finished."""
        with self._changed:
            if self.state in ("loading", "ready"):
                self.state = "draining"
            self._changed.notify_all()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread after its batch."""
        with self._changed:
            if self.state != "failed":
                self.state = "stopped"
            self._changed.notify_all()
        self._thread.join(timeout_s)

    # --- the thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            models = self._load()
            models.probe()
            with self._changed:
                if self.state == "loading":
                    self.state = "ready"
            while batch := self._next_batch():
                self._run(models, batch)
        except BaseException as error:
            self.failure = error
            with self._changed:
                self.state = "failed"
        finally:
            with self._changed:
                over = self.state == "failed"
                left = [job for job in self._running if not job.result.done()] + list(self._queue)
                self._n_taken -= len(self._queue)
                self._queue.clear()
                self._running = []
            for job in left:
                _refuse(job, self._not_ready())
            if over:
                self.when_over()

    def _next_batch(self) -> list[Job]:
        """Wait for a job and for those that may share its batch; nothing when the worker has been stopped."""
        with self._changed:
            while True:
                self._leave_out_cancelled()
                if self.state == "stopped":
                    return []
                if not self._queue:
                    self._changed.wait()
                    continue
                first = self._queue[0]
                batch = [job for job in self._queue if job.key == first.key][: self.limits.max_batch]
                left = first.queued_at + self.limits.max_wait_s - self.clock()
                if len(batch) < self.limits.max_batch and left > 0 and self.state == "ready":
                    self._changed.wait(left)
                    continue
                if batch := self._take_out(batch):
                    return batch

    def _take_out(self, batch: list[Job]) -> list[Job]:
        now, alive = self.clock(), []
        for job in batch:
            self._queue.remove(job)
            self._n_taken -= 1
            if now >= job.deadline:
                _refuse(job, Refusal(504, "the request was not answered in time"))
            elif job.result.set_running_or_notify_cancel():
                job.waited_s = now - job.queued_at
                alive.append(job)
        self._running = alive
        return alive

    def _leave_out_cancelled(self) -> None:
        for job in [job for job in self._queue if job.result.cancelled()]:
            self._queue.remove(job)
            self._n_taken -= 1

    def _run(self, models: Models, batch: list[Job]) -> None:
        began = self.clock()
        try:
            found: Sequence[Any] = models.caption(batch)
        except Exception as error:
            found = [error] if len(batch) == 1 else self._one_by_one(models, batch)
        took = self.clock() - began
        for job in batch:
            job.took_s, job.batch_size = took, len(batch)
        self.observe(batch)
        is_broken = False
        for job, result in zip(batch, found, strict=True):
            if isinstance(result, Img2SeqError):
                job.result.set_exception(result)
            elif isinstance(result, Exception):
                is_broken = True
                _refuse(job, busy(f"the model failed on this picture: {type(result).__name__}"))
            else:
                job.result.set_result(result)
        self._running = []
        if is_broken:
            models.probe()  # a model that captions nothing any more ends the server

    def _one_by_one(self, models: Models, batch: list[Job]) -> list[Any]:
        """Caption each alone, so that what one of them does to the model is not done to its neighbours."""
        found: list[Any] = []
        for job in batch:
            try:
                found += models.caption([job])
            except Exception as error:
                found.append(error)
        return found

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _refuse(job: Job, refusal: Refusal) -> None:
    """Tell whoever waits, if anyone still does."""
    if job.result.running() or job.result.set_running_or_notify_cancel():
        job.result.set_exception(refusal)
