"""The queue and the one thread behind it, with models that wait until they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from img2seq.errors import DataError
from img2seq.serving.body import ByteBudget
from img2seq.serving.limits import Limits, Refusal
from img2seq.serving.worker import Job, Models, Worker

PATIENCE_S = 20
LATER = 1e9


class Fake(Models):
    """Models whose batches wait at a gate; a payload that is an exception is raised."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[Any]] = []
        self.probes = 0
        self.broken: BaseException | None = None

    def caption(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append([job.payload for job in jobs])
        assert self.gate.wait(PATIENCE_S)
        for job in jobs:
            if isinstance(job.payload, BaseException):
                raise job.payload
        return [f"caption of {job.payload}" for job in jobs]

    def probe(self) -> None:
        self.probes += 1
        if self.broken is not None:
            raise self.broken


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def started() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(fake: Fake, *, clock: Callable[[], float] = time.monotonic, **limits: Any) -> Worker:
        worker = Worker(lambda: fake, Limits(**{"max_wait_s": 0.0, **limits}), clock=clock)
        workers.append(worker)
        worker.start()
        wait_until(lambda: worker.state != "loading")
        return worker

    yield start
    for worker in workers:
        worker.stop()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def submit(worker: Worker, *payloads: Any, key: object = "a", deadline: float = LATER) -> list[Job]:
    jobs = [Job(key, payload, deadline) for payload in payloads]
    with worker.places() as places:
        places.take(len(jobs))
        worker.submit(jobs, places)
    return jobs


def block(worker: Worker, fake: Fake) -> Job:
    """Let the worker begin a batch that does not end before the gate is opened."""
    fake.gate.clear()
    (job,) = submit(worker, "first")
    wait_until(lambda: fake.batches)
    return job


def test_a_full_queue_refuses_exactly_the_rest_and_keeps_what_it_took(
    fake: Fake, started: Callable[..., Worker]
) -> None:
    worker = started(fake, max_queue=4)
    jobs, refused = [block(worker, fake)], []
    for i in range(10):
        try:
            jobs += submit(worker, i)
        except Refusal as error:
            refused.append(error)
    assert len(jobs) == 1 + 4
    assert [(error.status, error.retry_after_s) for error in refused] == [(503, 1)] * 6
    fake.gate.set()
    assert [job.result.result(PATIENCE_S) for job in jobs] == [f"caption of {name}" for name in ("first", 0, 1, 2, 3)]


def test_jobs_of_one_key_share_a_batch_and_others_keep_their_turn(fake: Fake, started: Callable[..., Worker]) -> None:
    worker = started(fake, max_batch=3)
    block(worker, fake)
    jobs = [job for i in range(6) for job in submit(worker, i, key="ab"[i % 2])]
    fake.gate.set()
    for job in jobs:
        job.result.result(PATIENCE_S)
    assert fake.batches == [["first"], [0, 2, 4], [1, 3, 5]]
    assert [job.batch_size for job in jobs] == [3] * 6


def test_a_picture_waits_for_others_only_so_long(fake: Fake, started: Callable[..., Worker]) -> None:
    worker = started(fake, max_wait_s=0.2, max_batch=2)
    jobs = submit(worker, 1) + submit(worker, 2) + submit(worker, 3)
    for job in jobs:
        job.result.result(PATIENCE_S)
    assert fake.batches == [[1, 2], [3]]


def test_what_came_too_late_is_never_run(fake: Fake, started: Callable[..., Worker]) -> None:
    now = [0.0]
    worker = started(fake, clock=lambda: now[0])
    block(worker, fake)
    late, in_time = submit(worker, "late", deadline=5), submit(worker, "in time", deadline=50)
    now[0] = 10
    fake.gate.set()
    assert in_time[0].result.result(PATIENCE_S) == "caption of in time"
    with pytest.raises(Refusal) as caught:
        late[0].result.result(PATIENCE_S)
    assert caught.value.status == 504
    assert fake.batches == [["first"], ["in time"]]


def test_whoever_leaves_takes_the_work_along_and_gives_back_the_place(
    fake: Fake, started: Callable[..., Worker]
) -> None:
    worker = started(fake, max_queue=4)
    block(worker, fake)
    jobs = submit(worker, 0, 1, 2, 3)
    with pytest.raises(Refusal):
        submit(worker, 4)
    assert jobs[1].result.cancel()
    (late,) = submit(worker, 5)
    fake.gate.set()
    assert [job.result.result(PATIENCE_S) for job in (jobs[0], jobs[2], jobs[3], late)]
    assert sorted(payload for batch in fake.batches[1:] for payload in batch) == [0, 2, 3, 5]
    wait_until(lambda: worker.is_idle)


def test_places_that_were_not_used_are_given_back(fake: Fake, started: Callable[..., Worker]) -> None:
    worker = started(fake, max_queue=2)
    with suppress(DataError), worker.places() as places:
        places.take(2)
        assert worker.n_waiting == 2
        raise DataError("the picture is broken")
    assert worker.n_waiting == 0


def test_what_one_picture_does_to_the_model_is_not_done_to_its_neighbours(
    fake: Fake, started: Callable[..., Worker]
) -> None:
    worker = started(fake)
    block(worker, fake)
    jobs = submit(worker, 1, ValueError("too much"), DataError("its own fault"), 2)
    fake.gate.set()
    assert [jobs[i].result.result(PATIENCE_S) for i in (0, 3)] == ["caption of 1", "caption of 2"]
    with pytest.raises(Refusal) as caught:
        jobs[1].result.result(PATIENCE_S)
    assert (caught.value.status, "ValueError" in str(caught.value)) == (503, True)
    with pytest.raises(DataError, match="its own fault"):
        jobs[2].result.result(PATIENCE_S)
    wait_until(lambda: fake.probes == 2)  # once when it was loaded
    assert worker.state == "ready"
    assert submit(worker, 3)[0].result.result(PATIENCE_S) == "caption of 3"


@pytest.mark.parametrize("ending", ["the model captions nothing any more", "the thread dies"])
def test_a_worker_that_is_over_tells_everyone(ending: str, fake: Fake, started: Callable[..., Worker]) -> None:
    worker = started(fake, max_batch=1)
    over = threading.Event()
    worker.when_over = over.set
    fake.gate.clear()
    fake.broken = RuntimeError("device lost")
    error = RuntimeError("device lost") if ending.startswith("the model") else SystemExit(3)
    jobs = submit(worker, error) + submit(worker, 1) + submit(worker, 2)
    fake.gate.set()
    for job in jobs:
        with pytest.raises(Refusal) as caught:
            job.result.result(PATIENCE_S)
        assert caught.value.status == 503
    assert over.wait(PATIENCE_S)
    assert (worker.state, worker.n_waiting) == ("failed", 0)
    assert worker.failure is not None
    with pytest.raises(Refusal):
        submit(worker, 3)


def test_draining_takes_nothing_new_and_finishes_the_rest(fake: Fake, started: Callable[..., Worker]) -> None:
    worker = started(fake)
    first = block(worker, fake)
    (second,) = submit(worker, 2)
    worker.drain()
    with pytest.raises(Refusal) as caught:
        submit(worker, 3)
    assert caught.value.status == 503
    fake.gate.set()
    assert [job.result.result(PATIENCE_S) for job in (first, second)] == ["caption of first", "caption of 2"]
    wait_until(lambda: worker.is_idle)


def test_nothing_is_taken_before_the_models_are_loaded() -> None:
    gate = threading.Event()

    def load() -> Models:
        assert gate.wait(PATIENCE_S)
        raise DataError("no such run")

    worker = Worker(load, Limits())
    worker.start()
    with pytest.raises(Refusal, match="loaded"):
        submit(worker, 1)
    gate.set()
    wait_until(lambda: worker.state == "failed")
    assert isinstance(worker.failure, DataError)


def test_a_request_that_was_in_before_the_drain_may_bring_all_its_pictures(
    fake: Fake, started: Callable[..., Worker]
) -> None:
    worker = started(fake)
    with worker.places() as places:
        places.take(1)
        worker.drain()
        places.take(2)
        jobs = [Job("a", i, LATER) for i in range(3)]
        worker.submit(jobs, places)
    assert [job.result.result(PATIENCE_S) for job in jobs] == [f"caption of {i}" for i in range(3)]


def test_who_gives_up_at_the_moment_of_their_turn_leaves_no_bytes_behind() -> None:
    """Of two that wait and give up together one is passed over by the other's turn: neither may fail, nor keep bytes."""

    async def both() -> tuple[list[object], int]:
        budget = ByteBudget(10_000_000)

        async def hold() -> None:
            async with asyncio.timeout(0.05), budget.hold(9_000_000):
                await asyncio.sleep(0)

        async with budget.hold(9_000_000):
            found: list[object] = list(await asyncio.gather(*(hold() for _ in range(5)), return_exceptions=True))
        return found, budget.held

    found, held = asyncio.run(both())
    assert [type(error) for error in found] == [TimeoutError] * 5
    assert held == 0
